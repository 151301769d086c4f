//! One partition as a pure state machine: append, high watermark, epochs, roll, retention, truncation.
