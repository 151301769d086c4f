//! Client programs that show how to reach Forebay.
