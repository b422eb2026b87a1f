/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * PHP's stack, copied out of the memory of the worker that is about to leave a CPU.
 */
#ifndef GLASSPOOL_WAITS_STACK_H
#define GLASSPOOL_WAITS_STACK_H

#include "kernel.h"
#include "maps.h"
#include "types.h"

/* The pointer at an offset of bytes that were read; the mask is for the verifier. */
static ALWAYS_INLINE u64 pointer_at(const u8 *bytes, u32 room, u32 offset)
{
	return *(const u64 *)(bytes + (offset & (room - sizeof(u64))));
}

/*
 * Copies a zend_string, which is its length and then its text, to a length and a text. One
 * read for all: each costs more than the bytes do. A short one at the end of readable
 * memory needs a second.
 */
static ALWAYS_INLINE int copy_string(u64 *length, u32 room, u64 string, const struct gp_layout *layout,
				     int end_of_long_ones)
{
	u64 from = string + layout->string_length;
	u8 *text = (u8 *)(length + 1);

	*length = 0;
	if (!string)
		return 0;
	if (bpf_probe_read_user(length, sizeof(*length) + room, (void *)from)) {
		*length = 0;
		if (bpf_probe_read_user_str(text, room, (void *)(from + sizeof(*length))) < 0 ||
		    bpf_probe_read_user(length, sizeof(*length), (void *)from))
			return -1;
	}
	if (end_of_long_ones && *length > room)
		return bpf_probe_read_user(text, room, (void *)(from + sizeof(*length) + *length - room));
	return 0;
}

static ALWAYS_INLINE int copy_frame(struct gp_worker *worker, struct gp_frame *frame,
				    const struct gp_layout *layout)
{
	u64 function = pointer_at(worker->frame_bytes, GP_FRAME_READ, layout->frame_function);
	const u8 *bytes = worker->function_bytes;
	u64 class, class_name = 0, opline;
	int fault = 0;

	frame->line = 0;
	frame->type = 0;
	frame->name_length = 0;
	frame->class_length = 0;
	frame->file_length = 0;
	/* The place holder of a generator has none. */
	if (!function)
		return 0;
	if (bpf_probe_read_user(worker->function_bytes, GP_FUNCTION_READ, (void *)function) &&
	    bpf_probe_read_user(worker->function_bytes, GP_FUNCTION_HEAD, (void *)function))
		return -1;
	frame->type = bytes[layout->function_type & (GP_FUNCTION_ROOM - 1)];
	fault |= copy_string(&frame->name_length, GP_NAME_BYTES,
			     pointer_at(bytes, GP_FUNCTION_ROOM, layout->function_name), layout, 0) != 0;
	class = pointer_at(bytes, GP_FUNCTION_ROOM, layout->function_scope);
	if (class) {
		fault |= bpf_probe_read_user(&class_name, sizeof(class_name),
					     (void *)(class + layout->class_name)) != 0;
		fault |= copy_string(&frame->class_length, GP_CLASS_BYTES, class_name, layout, 1) != 0;
	}
	/* Builtins have neither file nor line. */
	if (!(frame->type & 1)) {
		opline = pointer_at(worker->frame_bytes, GP_FRAME_READ, layout->frame_opline);
		fault |= bpf_probe_read_user(&frame->line, sizeof(frame->line),
					     (void *)(opline + layout->op_line)) != 0;
		fault |= copy_string(&frame->file_length, GP_FILE_BYTES,
				     pointer_at(bytes, GP_FUNCTION_ROOM, layout->function_file), layout,
				     1) != 0;
	}
	return fault;
}

/*
 * Copies the stack, strings and all: resolving pointers later gave 2 % wrong stacks,
 * because without opcache the memory of a request is used again by the next one.
 */
static ALWAYS_INLINE void walk(struct gp_worker *worker)
{
	struct gp_wait *wait = &worker->wait;
	u32 number = worker->layout;
	const struct gp_layout *layout;
	u64 at = 0;

	wait->frame_count = 0;
	if (!worker->current)
		return;
	layout = bpf_map_lookup_elem(&layouts, &number);
	if (!layout)
		return;
	if (bpf_probe_read_user(&at, sizeof(at), (void *)worker->current)) {
		wait->flags |= GP_WAIT_FAULT;
		return;
	}
	for (u32 i = 0; i < GP_FRAMES && i < most_frames; i++) {
		if (!at)
			return;
		if (bpf_probe_read_user(worker->frame_bytes, GP_FRAME_READ, (void *)at)) {
			wait->flags |= GP_WAIT_FAULT;
			return;
		}
		if (copy_frame(worker, &wait->frames[i], layout))
			wait->flags |= GP_WAIT_FAULT;
		wait->frame_count = i + 1;
		at = pointer_at(worker->frame_bytes, GP_FRAME_READ, layout->frame_previous);
	}
	if (at)
		wait->flags |= GP_WAIT_CUT;
}

#endif
