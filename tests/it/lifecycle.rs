//! The life cycle.
