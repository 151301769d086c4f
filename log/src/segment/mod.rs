//! A segment on disk: names, offset index, time index, and the scan that recovers a torn one.
