/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * PHP's stack, copied out of the memory of the worker that is about to leave a CPU.
 *
 * Strings and all: resolving pointers later gave 2 % wrong stacks, because without opcache
 * the memory of a request is used again by the next one. Reading costs by the number of
 * reads, not of bytes; so frames, which lie close together, are read many at a time, and
 * what cannot have changed since the wait before is not read again.
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
 * Copies a zend_string, which is its length and then its text, to a length and a text. A
 * short one at the end of readable memory needs a second read. Not 0 if it is not there.
 */
static ALWAYS_INLINE u64 copy_string(u64 *length, u32 room, u64 string, const struct gp_layout *layout,
				     int end_of_long_ones)
{
	u64 from = string + layout->string_length;
	u8 *text = (u8 *)(length + 1);

	*length = 0;
	if (!string)
		return 0;
	if (bpf_probe_read_user(length, sizeof(*length) + room, (void *)from)) {
		*length = 0;
		if (bpf_probe_read_user_str(text, room, (void *)(from + sizeof(*length))) < 0)
			return 1;
		return bpf_probe_read_user(length, sizeof(*length), (void *)from);
	}
	if (end_of_long_ones && *length > room)
		return bpf_probe_read_user(text, room, (void *)(from + sizeof(*length) + *length - room));
	return 0;
}

static ALWAYS_INLINE u64 copy_line(struct gp_frame *frame, u64 opline, const struct gp_layout *layout)
{
	return bpf_probe_read_user(&frame->line, sizeof(frame->line), (void *)(opline + layout->op_line));
}

/*
 * Copies what a call is of. Global and not inlined, so that the verifier looks at it once
 * and not for each frame and each way to come there; hence the look at all pointers.
 */
__attribute__((noinline)) int copy_frame(struct gp_walk *walk, struct gp_frame *frame,
					 const struct gp_call *call, const struct gp_layout *layout)
{
	const u8 *bytes;
	u64 class, class_name = 0;
	u32 flags, lasting;

	if (!walk || !frame || !call || !layout)
		return 0;
	bytes = walk->function;
	lasting = layout->flags_lasting;
	walk->fault = 0;
	walk->lasts = 0;
	frame->line = 0;
	frame->type = 0;
	frame->name_length = 0;
	frame->class_length = 0;
	frame->file_length = 0;
	/* The place holder of a generator has none. */
	if (!call->function)
		return 0;
	if (bpf_probe_read_user(walk->function, GP_FUNCTION_READ, (void *)call->function) &&
	    bpf_probe_read_user(walk->function, GP_FUNCTION_HEAD, (void *)call->function)) {
		walk->fault = 1;
		return 0;
	}
	frame->type = bytes[layout->function_type & (GP_FUNCTION_ROOM - 1)];
	flags = *(const u32 *)(bytes + (layout->function_flags & (GP_FUNCTION_ROOM - sizeof(u32))));
	walk->fault |= copy_string(&frame->name_length, GP_NAME_BYTES,
				   pointer_at(bytes, GP_FUNCTION_ROOM, layout->function_name), layout, 0);
	class = pointer_at(bytes, GP_FUNCTION_ROOM, layout->function_scope);
	if (class) {
		walk->fault |= bpf_probe_read_user(&class_name, sizeof(class_name),
						   (void *)(class + layout->class_name));
		walk->fault |= copy_string(&frame->class_length, GP_CLASS_BYTES, class_name, layout, 1);
	}
	/* Builtins have neither file nor line. */
	if (!(frame->type & 1)) {
		walk->fault |= copy_line(frame, call->opline, layout);
		walk->fault |= copy_string(&frame->file_length, GP_FILE_BYTES,
					   pointer_at(bytes, GP_FUNCTION_ROOM, layout->function_file),
					   layout, 1);
	}
	if (lasting && !walk->fault && !(flags & layout->flags_passing) &&
	    ((frame->type & 1) || (flags & lasting) == lasting))
		walk->lasts = 1;
	return 0;
}

/*
 * Notes the functions of the stack from the innermost, at most `most` of them, and how many
 * they are. Returns whether there may be more: the address of the next one.
 */
static ALWAYS_INLINE u64 note_calls(struct gp_walk *walk, struct gp_wait *wait, u64 at,
				    const struct gp_layout *layout)
{
	u64 base = 0;
	u32 count = 0;

	for (u32 i = 0; i < GP_FRAMES && i < most_frames; i++) {
		u64 offset = at - base;
		const u8 *frame;

		if (!at)
			break;
		if (!base || offset > GP_STACK_READ - GP_FRAME_READ) {
			/* The stack grows upwards: callers are below. */
			base = at - (GP_STACK_READ - GP_FRAME_READ);
			offset = GP_STACK_READ - GP_FRAME_READ;
			if (bpf_probe_read_user(walk->stack, GP_STACK_READ, (void *)base)) {
				base = 0;
				if (bpf_probe_read_user(walk->stack + GP_STACK_READ - GP_FRAME_READ,
							GP_FRAME_READ, (void *)at)) {
					wait->flags |= GP_WAIT_FAULT;
					at = 0;
					break;
				}
			}
		}
		FORGET(offset);
		frame = walk->stack + (offset & (GP_STACK_READ - sizeof(u64)));
		walk->calls[i].function = pointer_at(frame, GP_FRAME_READ, layout->frame_function);
		walk->calls[i].opline = pointer_at(frame, GP_FRAME_READ, layout->frame_opline);
		at = pointer_at(frame, GP_FRAME_READ, layout->frame_previous);
		count = i + 1;
	}
	wait->frame_count = count;
	return at;
}

/*
 * Copies the stack. What lasts as long as its request (says layout.rs) is not copied again
 * in the same request at the same depth; of request 0, all is. Global as copy_frame is.
 */
__attribute__((noinline)) int walk_stack(struct gp_worker *worker, struct gp_walk *walk,
					 struct gp_wait *wait, u32 request)
{
	const struct gp_layout *layout;
	u32 number, count;
	u64 at = 0;

	if (!worker || !walk || !wait)
		return 0;
	number = worker->layout;
	wait->frame_count = 0;
	wait->flags = 0;
	if (!worker->current)
		return 0;
	layout = bpf_map_lookup_elem(&layouts, &number);
	if (!layout)
		return 0;
	if (bpf_probe_read_user(&at, sizeof(at), (void *)worker->current)) {
		wait->flags |= GP_WAIT_FAULT;
		return 0;
	}
	if (note_calls(walk, wait, at, layout))
		wait->flags |= GP_WAIT_CUT;
	count = wait->frame_count;
	for (u32 i = 0; i < GP_FRAMES; i++) {
		struct gp_frame *frame = &wait->frames[i];
		struct gp_seen *seen = &walk->seen[i];
		const struct gp_call *call;

		if (i >= count)
			break;
		call = &walk->calls[(count - 1 - i) & (GP_FRAMES - 1)];
		if (request && seen->request == request && seen->function &&
		    seen->function == call->function) {
			if (!seen->builtin && seen->opline != call->opline) {
				seen->opline = call->opline;
				/* It was there the last time; 0 if it is not. */
				frame->line = 0;
				copy_line(frame, call->opline, layout);
			}
			continue;
		}
		copy_frame(walk, frame, call, layout);
		if (walk->fault)
			wait->flags |= GP_WAIT_FAULT;
		seen->function = walk->lasts ? call->function : 0;
		seen->opline = call->opline;
		seen->request = request;
		seen->builtin = frame->type & 1;
	}
	return 0;
}

#endif
