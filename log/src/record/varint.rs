//! Variable-length zigzag integers of the v2 record format.
