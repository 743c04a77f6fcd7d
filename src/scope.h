/*
 * scope.h
 *		The scope of a request, {"room_id": 7}, as the log knows it.
 */
#ifndef POLL_SCOPE_H
#define POLL_SCOPE_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "catalog.h"

/*
 * Appends the values that the object (or NULL) has for the scope's columns of
 * the feed, and adds those to the list; errors if one is missing or no value
 * of its type.  Returns a hash of the columns' types.
 */
extern uint32 poll_scope_of_request(StringInfo buf, const PollFeed *feed, Jsonb *object, List **used);

/* Errors if the object (or NULL) has a key that is not in the list. */
extern void poll_scope_check_used(Jsonb *object, List *used);

#endif							/* POLL_SCOPE_H */
