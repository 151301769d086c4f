//! End-to-end tests of Forebay: the harness that runs a node and the checks that independent clients make.
