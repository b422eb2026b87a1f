/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * What the programs are told, and where they keep and tell what they know.
 */
#ifndef GLASSPOOL_WAITS_MAPS_H
#define GLASSPOOL_WAITS_MAPS_H

#include "kernel.h"
#include "types.h"

/* Set before loading. */
const volatile u64 wait_threshold_ns = 1000000;
const volatile u32 most_frames = GP_FRAMES;
/* Bytes in the ring from which on its reader is woken; below, it comes by itself. */
const volatile u64 ring_wake_bytes = 256 * 1024;

struct {
	MAP_INT(type, BPF_MAP_TYPE_TASK_STORAGE);
	MAP_INT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct gp_worker);
} workers SEC(".maps");

struct {
	MAP_INT(type, BPF_MAP_TYPE_ARRAY);
	MAP_INT(map_flags, BPF_F_MMAPABLE);
	MAP_INT(max_entries, 1); /* set before loading */
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct gp_page);
} pages SEC(".maps");

struct {
	MAP_INT(type, BPF_MAP_TYPE_ARRAY);
	MAP_INT(max_entries, GP_LAYOUTS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct gp_layout);
} layouts SEC(".maps");

struct {
	MAP_INT(type, BPF_MAP_TYPE_ARRAY);
	MAP_INT(max_entries, GP_COUNTS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} counts SEC(".maps");

struct {
	MAP_INT(type, BPF_MAP_TYPE_RINGBUF);
	MAP_INT(max_entries, 1048576); /* set before loading */
} events SEC(".maps");

/* Room of each CPU to take a look in; nothing interrupts a look but another's wait. */
struct {
	MAP_INT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_INT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct gp_look);
} looks SEC(".maps");

static ALWAYS_INLINE void count(u32 place)
{
	u64 *number = bpf_map_lookup_elem(&counts, &place);

	if (number)
		__sync_fetch_and_add(number, 1);
}

#endif
