/*
 * sharing.h
 *		The answer to a poll that many ask, made once.
 */
#ifndef POLL_SHARING_H
#define POLL_SHARING_H

#include "answer.h"
#include "cache.h"

/*
 * The position of a request's feeds in a content, with what is known of their streams
 * now: appends it; where it ends; and can nothing be new since then?  The last runs no
 * SQL.
 */
extern void poll_position_append(StringInfo buf, const PollRequest *request, const PollCursor *position);
extern const char *poll_position_end(const char *src);
extern bool poll_position_holds(const char *src, PollRequest *request);

/*
 * Adds what tells the request's feeds, and scope, from others; false if what is read of
 * them must not be shared: policies decide on it, and nobody has said by which
 * claims.
 */
extern bool poll_sharing_add_feeds(StringInfo key, const PollFeedSet *set);

/*
 * As poll_answer(), of the same or a later moment, perhaps made for somebody else; with
 * the tag of what lasts of it.  With poll_ext.cache_ttl, of a moment so long ago at
 * most.
 */
extern PollAnswer poll_shared_answer(PollRequest *request, text *cursor, int max_rows, text **tag);

#endif							/* POLL_SHARING_H */
