/*
 * error.h
 *		The SQLSTATEs that PostgREST turns into the right HTTP status.
 *
 * It makes the message the reason phrase of the answer, which ends at the first
 * line break.  So a message is constant; values are for the detail.
 */
#ifndef POLL_ERROR_H
#define POLL_ERROR_H

#include "utils/elog.h"

/* bad argument or cursor */
#define ERRCODE_POLL_BAD_REQUEST	MAKE_SQLSTATE('P', 'T', '4', '0', '0')

/* no such feed, or not for the caller */
#define ERRCODE_POLL_NOT_FOUND		MAKE_SQLSTATE('P', 'T', '4', '0', '4')

/* the cursor was good once */
#define ERRCODE_POLL_EXPIRED		MAKE_SQLSTATE('P', 'T', '4', '1', '0')

#endif							/* POLL_ERROR_H */
