//! The codecs of a batch, each with a bound on what it may expand to.

use std::cell::RefCell;
use std::io::{Read, Write};

use bytes::Bytes;

use super::BatchProblem;

/// The zstd level of batches built here: the log's price is CPU per byte, and the lake compresses again.
const ZSTD_LEVEL: i32 = 1;
/// Largest zstd window accepted, as a power of two: 128 MiB, zstd's own default bound.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Before the blocks of snappy as Java clients write it (xerial's framing): magic, version 1, compatible with 1.
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_MAGIC_BYTES: usize = 8;
/// Uncompressed bytes of one xerial block (the Java client's block size).
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// No snappy element makes more than 64 bytes out of each of its own bytes, so a larger claim is a lie.
const SNAPPY_MAX_RATIO: usize = 64;

thread_local! {
    /// zstd's tables take longer to make than a small batch takes to compress, so each thread keeps them.
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    /// As for compression.
    static UNZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A zstd frame that claims at most this size is unpacked in one go: no lie about it costs more.
const ZSTD_AT_ONCE_BYTES: usize = 1 << 20;

/// Compression of a batch, bits 0 to 2 of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub(super) fn from_id(id: i16) -> Result<Compression, BatchProblem> {
        match id {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            _ => Err(BatchProblem::Malformed("unknown compression codec")),
        }
    }

    pub(super) fn id(self) -> i16 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// Decompresses `data`, refusing more than `limit` bytes of output. Memory follows what really comes out, never
    /// a size that the data only claims.
    ///
    /// # Errors
    /// [`BatchProblem::Malformed`] for broken data or too much of it.
    pub fn decompress(self, data: &Bytes, limit: usize) -> Result<Bytes, BatchProblem> {
        match self {
            Compression::None if data.len() > limit => Err(TOO_LARGE),
            Compression::None => Ok(data.clone()),
            Compression::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(&data[..]), data.len(), limit),
            Compression::Snappy => snappy_decompress(data, limit),
            Compression::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(&data[..]), data.len(), limit),
            Compression::Zstd => {
                if let Some(out) = zstd_at_once(data, limit) {
                    return Ok(out);
                }
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&data[..]).map_err(|_| BROKEN)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| BROKEN)?;
                read_bounded(decoder, data.len(), limit)
            }
        }
    }

    /// Compresses `data` behind `header_bytes` zero bytes; `None` when the codec fails or is `None` itself.
    pub(super) fn compress_behind(self, header_bytes: usize, data: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0u8; header_bytes];
        match self {
            Compression::None => return None,
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
                encoder.write_all(data).ok()?;
                out = encoder.finish().ok()?;
            }
            Compression::Snappy => {
                out.extend_from_slice(&XERIAL_HEADER);
                let mut encoder = snap::raw::Encoder::new();
                for block in data.chunks(XERIAL_BLOCK_BYTES) {
                    let compressed = encoder.compress_vec(block).ok()?;
                    out.extend_from_slice(&u32::try_from(compressed.len()).ok()?.to_be_bytes());
                    out.extend_from_slice(&compressed);
                }
            }
            Compression::Lz4 => {
                // Java's reader refuses blocks that depend on each other.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
                encoder.write_all(data).ok()?;
                out = encoder.finish().ok()?;
            }
            Compression::Zstd => {
                out.resize(header_bytes + zstd::zstd_safe::compress_bound(data.len()), 0);
                let written = ZSTD.with_borrow_mut(|slot| {
                    if slot.is_none() {
                        *slot = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
                    }
                    slot.as_mut()?.compress_to_buffer(data, &mut out[header_bytes..]).ok()
                })?;
                out.truncate(header_bytes + written);
            }
        }
        Some(out)
    }
}

const TOO_LARGE: BatchProblem = BatchProblem::Malformed("decompresses to more than the limit");
const BROKEN: BatchProblem = BatchProblem::Malformed("compressed records are broken");

fn read_bounded(mut decoder: impl Read, compressed: usize, limit: usize) -> Result<Bytes, BatchProblem> {
    let mut out = Vec::with_capacity(compressed.saturating_mul(4).min(limit));
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.by_ref().take(bound).read_to_end(&mut out).map_err(|_| BROKEN)?;
    if out.len() > limit { Err(TOO_LARGE) } else { Ok(Bytes::from(out)) }
}

/// One frame whose size stands in it, as batches built here are; `None` for any other and for what fails.
fn zstd_at_once(data: &[u8], limit: usize) -> Option<Bytes> {
    let size = usize::try_from(zstd::zstd_safe::get_frame_content_size(data).ok()??).ok()?;
    if size > ZSTD_AT_ONCE_BYTES.min(limit) || zstd::zstd_safe::find_frame_compressed_size(data) != Ok(data.len()) {
        return None;
    }
    UNZSTD.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Decompressor::new().ok();
        }
        let out = slot.as_mut()?.decompress(data, size).ok()?;
        (out.len() == size).then(|| Bytes::from(out))
    })
}

fn snappy_decompress(data: &[u8], limit: usize) -> Result<Bytes, BatchProblem> {
    let mut out = Vec::new();
    if !data.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
        snappy_block(data, &mut out, limit)?;
        return Ok(Bytes::from(out));
    }
    let mut rest = data.get(XERIAL_HEADER.len()..).ok_or(BROKEN)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(BROKEN)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| BROKEN)?;
        let (block, after) = after.split_at_checked(length).ok_or(BROKEN)?;
        snappy_block(block, &mut out, limit)?;
        rest = after;
    }
    Ok(Bytes::from(out))
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), BatchProblem> {
    let claimed = snap::raw::decompress_len(block).map_err(|_| BROKEN)?;
    let start = out.len();
    if claimed > limit - start {
        return Err(TOO_LARGE);
    }
    if claimed > block.len().saturating_mul(SNAPPY_MAX_RATIO) {
        return Err(BROKEN);
    }
    out.resize(start + claimed, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|_| BROKEN)?;
    if written == claimed { Ok(()) } else { Err(BROKEN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    #[test]
    fn every_codec_gives_back_what_it_compressed() {
        for codec in ALL {
            for length in [0usize, 1, 100, 200_000] {
                let data: Vec<u8> = (0..length).map(|i| (i % 251).to_le_bytes()[0]).collect();
                let packed = codec.compress_behind(3, &data).map(Bytes::from);
                let packed = packed.unwrap_or_else(|| panic!("{codec:?} compresses"));
                assert_eq!(codec.decompress(&packed.slice(3..), 1 << 20), Ok(Bytes::from(data)), "{codec:?} {length}");
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let data = vec![0u8; 1 << 20];
        for codec in ALL {
            let packed = codec.compress_behind(0, &data).map(Bytes::from);
            let packed = packed.unwrap_or_else(|| panic!("{codec:?} compresses"));
            assert_eq!(codec.decompress(&packed, (1 << 20) - 1), Err(TOO_LARGE), "{codec:?}");
        }
    }

    #[test]
    fn snappy_without_framing_is_read_too() {
        let data = b"meter meter meter meter".repeat(100);
        let packed = snap::raw::Encoder::new().compress_vec(&data).map(Bytes::from);
        let packed = packed.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(Compression::Snappy.decompress(&packed, 1 << 20), Ok(Bytes::from(data)));
    }

    #[test]
    fn a_claimed_size_alone_allocates_nothing() {
        // 96 MiB claimed by six bytes.
        let lie = Bytes::from_static(&[0x80, 0x80, 0x80, 0x30, 0x00, b'x']);
        assert_eq!(Compression::Snappy.decompress(&lie, 128 << 20), Err(BROKEN));
    }
}
