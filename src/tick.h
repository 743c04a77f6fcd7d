/*
 * tick.h
 *		Ticks: from a time to a position in the log.
 */
#ifndef POLL_TICK_H
#define POLL_TICK_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "cursor.h"

/*
 * Before a transaction commits that has written to the log: writes a tick if
 * one is due.
 */
extern void poll_tick_at_flush(void);

/*
 * Writes a tick.  horizon: one of the log that this transaction has made and will
 * commit synchronously, or 0.
 */
extern void poll_tick_write(uint64 horizon);

/* Deletes the ticks below x: what follows them has expired. */
extern void poll_tick_trim(uint64 x);

/*
 * Fills in x and p of the cursor from the newest tick at or before that time
 * that the snapshot shows; false if there is none.
 */
extern bool poll_tick_find(Snapshot snapshot, TimestampTz at, PollCursor *cursor);

/*
 * The same from the newest tick that was written on that timeline, or one before
 * it, as the last commit left them.
 */
extern bool poll_tick_find_on(TimeLineID timeline, PollCursor *cursor);

/*
 * May the time be one of a server whose timeline went on without this one?  It is
 * one after the last tick that they share and before the first of this timeline.
 */
extern bool poll_tick_apart(TimestampTz at);

/* The time of the newest tick that the snapshot shows, or 0. */
extern TimestampTz poll_tick_newest(Snapshot snapshot);

#endif							/* POLL_TICK_H */
