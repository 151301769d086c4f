//! Tests over real sockets of this machine.
