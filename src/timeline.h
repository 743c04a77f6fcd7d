/*
 * timeline.h
 *		Cursors from before a promotion or a point-in-time recovery.
 */
#ifndef POLL_TIMELINE_H
#define POLL_TIMELINE_H

#include "cursor.h"

/*
 * Makes the cursor one of this server's timeline, if all that its owner has seen
 * has happened there, too; errors if that is not so, or not known.
 */
extern void poll_timeline_adopt(PollCursor *cursor);

#endif							/* POLL_TIMELINE_H */
