/*
 * snapshot.h
 *		What a poll needs to know of the snapshot that it runs under.
 */
#ifndef POLL_SNAPSHOT_H
#define POLL_SNAPSHOT_H

#include "access/transam.h"
#include "utils/snapshot.h"

#include "cursor.h"

/*
 * Pushes a copy of the active snapshot that does not see this transaction's
 * own changes, and returns it; the caller pops it.
 */
extern Snapshot poll_snapshot_push(void);

/* Fills the view of the snapshot; the array is palloc'd. */
extern void poll_snapshot_view(Snapshot snapshot, PollView *view);

/* This server's position in the WAL, at or behind all that a snapshot shows. */
extern XLogRecPtr poll_snapshot_position(void);

/* Is the snapshot too old for the cursor?  See "Behind" in cursor.c. */
extern bool poll_snapshot_behind(Snapshot snapshot, const PollView *view,
								 const PollCursor *cursor);

/*
 * Does the snapshot surely show all that a server had shown by that position?  It
 * is the active one of a statement.
 */
extern bool poll_snapshot_includes(Snapshot snapshot, XLogRecPtr lsn);

/* Makes what the snapshot shows durable before it is handed out. */
extern void poll_snapshot_flush(Snapshot snapshot);

#endif							/* POLL_SNAPSHOT_H */
