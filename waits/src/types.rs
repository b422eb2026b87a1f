//! `bpf/types.h` as Rust sees it. The numbers are taken from that file by `build.rs`; the
//! structs are written here again and compared with those numbers when this is compiled.

use std::mem::{offset_of, size_of};

use glasspool_abi::times;

/// The `#define`s of `bpf/types.h`, without their `GP_`.
#[expect(
    dead_code,
    reason = "all of them are taken over, whether used here or by the programs only"
)]
mod numbers {
    include!(concat!(env!("OUT_DIR"), "/numbers.rs"));
}
pub(crate) use numbers::*;

/// `struct gp_times`.
#[repr(C)]
pub(crate) struct RawTimes {
    pub(crate) began_ns: u64,
    pub(crate) since_ns: u64,
    pub(crate) state: u32,
    pub(crate) cause: u32,
    pub(crate) on_cpu_ns: u64,
    pub(crate) runqueue_ns: u64,
    pub(crate) blocked_ns: [u64; CAUSES as usize],
    pub(crate) waits: u64,
    pub(crate) written: u64,
    pub(crate) lost: u64,
    pub(crate) ran_ns: u64,
    pub(crate) calls: u64,
    pub(crate) calls_ns: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// `struct gp_frame`.
#[repr(C)]
pub(crate) struct RawFrame {
    pub(crate) line: u32,
    pub(crate) kind: u8,
    pub(crate) unused: [u8; 3],
    pub(crate) name_length: u64,
    pub(crate) name: [u8; NAME_BYTES as usize],
    pub(crate) class_length: u64,
    pub(crate) class_name: [u8; CLASS_BYTES as usize],
    pub(crate) file_length: u64,
    pub(crate) file: [u8; FILE_BYTES as usize],
}

/// `struct gp_wait` without its frames.
#[repr(C)]
pub(crate) struct RawWait {
    pub(crate) worker: u64,
    pub(crate) request: u64,
    pub(crate) began_ns: u64,
    pub(crate) blocked_ns: u64,
    pub(crate) runqueue_ns: u64,
    pub(crate) object: u64,
    pub(crate) slot: u32,
    pub(crate) call: i32,
    pub(crate) fd: i32,
    pub(crate) receive_queue: u32,
    pub(crate) send_queue: u32,
    pub(crate) family: u16,
    pub(crate) protocol: u16,
    pub(crate) port: u16,
    pub(crate) path_length: u16,
    pub(crate) tcp_state: u8,
    pub(crate) cause: u8,
    pub(crate) fd_kind: u8,
    pub(crate) flags: u8,
    pub(crate) frame_count: u32,
    pub(crate) address: [u8; 16],
    pub(crate) path: [u8; PATH_BYTES as usize],
    pub(crate) kind: u32,
    pub(crate) unused: u32,
}

const _: () = {
    assert!(size_of::<RawTimes>() == TIMES_BYTES as usize);
    assert!(size_of::<RawFrame>() == FRAME_BYTES as usize);
    assert!(size_of::<RawWait>() == WAIT_HEAD_BYTES as usize);
    assert!(WAIT_BYTES == WAIT_HEAD_BYTES + FRAMES * FRAME_BYTES);
    assert!(WORKER_BYTES > WORKER_WAIT_AT + WAIT_BYTES);
    assert!(offset_of!(RawTimes, since_ns) == TIMES_SINCE_NS_AT as usize);
    assert!(offset_of!(RawTimes, state) == TIMES_STATE_AT as usize);
    assert!(offset_of!(RawTimes, cause) == TIMES_CAUSE_AT as usize);
    assert!(offset_of!(RawTimes, on_cpu_ns) == TIMES_ON_CPU_NS_AT as usize);
    assert!(offset_of!(RawTimes, runqueue_ns) == TIMES_RUNQUEUE_NS_AT as usize);
    assert!(offset_of!(RawTimes, blocked_ns) == TIMES_BLOCKED_NS_AT as usize);
    assert!(offset_of!(RawTimes, waits) == TIMES_WAITS_AT as usize);
    assert!(offset_of!(RawTimes, written) == TIMES_WRITTEN_AT as usize);
    assert!(offset_of!(RawTimes, lost) == TIMES_LOST_AT as usize);
    assert!(offset_of!(RawTimes, ran_ns) == TIMES_RAN_NS_AT as usize);
    assert!(offset_of!(RawTimes, calls) == TIMES_CALLS_AT as usize);
    assert!(offset_of!(RawTimes, calls_ns) == TIMES_CALLS_NS_AT as usize);
    assert!(offset_of!(RawTimes, sent) == TIMES_SENT_AT as usize);
    assert!(offset_of!(RawTimes, received) == TIMES_RECEIVED_AT as usize);
    assert!(offset_of!(RawFrame, kind) == FRAME_TYPE_AT as usize);
    assert!(offset_of!(RawFrame, name_length) == FRAME_NAME_LENGTH_AT as usize);
    assert!(offset_of!(RawFrame, class_length) == FRAME_CLASS_LENGTH_AT as usize);
    assert!(offset_of!(RawFrame, file_length) == FRAME_FILE_LENGTH_AT as usize);
    assert!(offset_of!(RawWait, request) == WAIT_REQUEST_AT as usize);
    assert!(offset_of!(RawWait, began_ns) == WAIT_BEGAN_NS_AT as usize);
    assert!(offset_of!(RawWait, blocked_ns) == WAIT_BLOCKED_NS_AT as usize);
    assert!(offset_of!(RawWait, runqueue_ns) == WAIT_RUNQUEUE_NS_AT as usize);
    assert!(offset_of!(RawWait, object) == WAIT_OBJECT_AT as usize);
    assert!(offset_of!(RawWait, slot) == WAIT_SLOT_AT as usize);
    assert!(offset_of!(RawWait, call) == WAIT_CALL_AT as usize);
    assert!(offset_of!(RawWait, fd) == WAIT_FD_AT as usize);
    assert!(offset_of!(RawWait, receive_queue) == WAIT_RECEIVE_QUEUE_AT as usize);
    assert!(offset_of!(RawWait, send_queue) == WAIT_SEND_QUEUE_AT as usize);
    assert!(offset_of!(RawWait, family) == WAIT_FAMILY_AT as usize);
    assert!(offset_of!(RawWait, protocol) == WAIT_PROTOCOL_AT as usize);
    assert!(offset_of!(RawWait, port) == WAIT_PORT_AT as usize);
    assert!(offset_of!(RawWait, path_length) == WAIT_PATH_LENGTH_AT as usize);
    assert!(offset_of!(RawWait, tcp_state) == WAIT_TCP_STATE_AT as usize);
    assert!(offset_of!(RawWait, cause) == WAIT_CAUSE_AT as usize);
    assert!(offset_of!(RawWait, fd_kind) == WAIT_FD_KIND_AT as usize);
    assert!(offset_of!(RawWait, flags) == WAIT_FLAGS_AT as usize);
    assert!(offset_of!(RawWait, frame_count) == WAIT_FRAME_COUNT_AT as usize);
    assert!(offset_of!(RawWait, address) == WAIT_ADDRESS_AT as usize);
    assert!(offset_of!(RawWait, path) == WAIT_PATH_AT as usize);
    assert!(offset_of!(RawWait, kind) == WAIT_KIND_AT as usize);
};

/// What a worker reads of its page is where the programs write it.
const _: () = {
    assert!(size_of::<RawTimes>() == times::RAW_WORDS * 8);
    assert!(PAGE_BYTES as usize == times::PAGE_BYTES);
    assert!(PAGE_REQUEST_AT as usize == times::REQUEST * 8);
    assert!(PAGE_CONNECTION_AT as usize == times::CONNECTION * 8);
    assert!(PAGE_SEQUENCE_AT as usize == times::SEQUENCE * 8);
    assert!(PAGE_TIMES_AT as usize == times::TIMES * 8);
    assert!(CAUSES as usize == times::CAUSES);
    assert!(offset_of!(RawTimes, began_ns) == times::BEGAN * 8);
    assert!(offset_of!(RawTimes, since_ns) == times::SINCE * 8);
    assert!(offset_of!(RawTimes, state) == times::STATE * 8);
    assert!(offset_of!(RawTimes, cause) == times::STATE * 8 + 4);
    assert!(offset_of!(RawTimes, on_cpu_ns) == times::ON_CPU * 8);
    assert!(offset_of!(RawTimes, runqueue_ns) == times::RUNQUEUE * 8);
    assert!(offset_of!(RawTimes, blocked_ns) == times::BLOCKED * 8);
    assert!(offset_of!(RawTimes, waits) == times::WAITS * 8);
    assert!(offset_of!(RawTimes, written) == times::WRITTEN * 8);
    assert!(offset_of!(RawTimes, lost) == times::LOST * 8);
    assert!(offset_of!(RawTimes, ran_ns) == times::RAN * 8);
    assert!(offset_of!(RawTimes, calls) == times::CALLS * 8);
    assert!(offset_of!(RawTimes, calls_ns) == times::CALLS_NS * 8);
    assert!(offset_of!(RawTimes, sent) == times::SENT * 8);
    assert!(offset_of!(RawTimes, received) == times::RECEIVED * 8);
    assert!(STATE_ON_CPU == times::STATE_ON_CPU);
    assert!(STATE_RUNQUEUE == times::STATE_RUNQUEUE);
    assert!(STATE_BLOCKED == times::STATE_BLOCKED);
};
