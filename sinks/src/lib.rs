//! Alert rules: parse, check, evaluate, and the lifecycle of their alerts, free of IO; receivers at the edge.
