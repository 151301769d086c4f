//! `forebay demo --once`: the main job on real readings, whole, with counts that add up.

use anyhow::Result;
use forebay_tests::lake;
use forebay_tests::process::forebay;

#[test]
fn the_demo_replays_stores_tiers_and_checks() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let output = forebay()?.args(["demo", "--once", "--data-dir"]).arg(dir.path().join("demo")).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    // 26,872 half-hourly readings of London and 10,080 minutes of which 38 are missing.
    let total = 26_872 + 10_080 - 38;
    let plain: String = text.chars().filter(|c| *c != ',').collect();
    assert!(plain.matches(&total.to_string()).count() >= 3, "sent, acked, in the table: {total} each\n{text}");
    assert!(text.contains("firing") || text.contains("fired"), "{text}");
    assert!(text.contains("forebay consume"), "the next commands to try\n{text}");
    let table = find_table(&dir.path().join("demo"))?;
    let rows = lake::rows(&table)?;
    assert_eq!(rows.len(), total, "rows in {}", table.display());
    Ok(())
}

fn find_table(dir: &std::path::Path) -> Result<std::path::PathBuf> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.ends_with("readings") && path.join("_delta_log").exists() {
            return Ok(path);
        }
        if path.is_dir()
            && let Ok(found) = find_table(&path)
        {
            return Ok(found);
        }
    }
    anyhow::bail!("no Delta table under {}", dir.display())
}
