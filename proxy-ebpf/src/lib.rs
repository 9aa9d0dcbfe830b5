//! The life of a packet.
#![no_std]
