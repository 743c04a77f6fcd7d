/*
 * response.h
 *		The response to a request over HTTP, from whatever function answers it.
 */
#ifndef POLL_RESPONSE_H
#define POLL_RESPONSE_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

#include "http.h"
#include "request.h"

/* Headers of ours that pages of other origins may read, if CORS exposes them. */
#define POLL_RESPONSE_EXPOSED	"ETag, Link, RateLimit, RateLimit-Policy, Retry-After, X-Poll-Interval"

typedef struct PollResponse
{
	int			status;
	List	   *headers;		/* names and values in turn, char * */
	text	   *body;			/* or NULL */
	int64		retry_after;	/* of a 429: seconds to wait, at least one */
	int			max_age;		/* seconds for which caches may give it to
								 * others; 0: not at all */
} PollResponse;

extern void poll_response_header(PollResponse *response, const char *name, const char *value);

/*
 * Appends the headers to JSON: each as "name":"value", with commas and what is
 * given between them.
 */
extern void poll_response_write(StringInfo buf, const PollResponse *response, const char *between);

/* A Link to the request with that cursor, or with none; unless it is too long. */
extern void poll_response_link(PollResponse *response, const PollHttpRequest *request,
							   text *cursor, const char *relation);

/* The headers of an answer that has a tag. */
extern void poll_response_validator(PollResponse *response, text *tag, const char *vary);

/*
 * May the client (NULL: nobody is counted) ask now?  If not, the status is 429.
 * If there is a limit, the headers say so; of a peek, which spends nothing, and of
 * a response that others may get, only if the answer is no.
 */
extern bool poll_response_rate(PollResponse *response, text *client, const char *endpoint,
							   Size endpoint_length, bool peek);

/* A poll, from step to step. */
typedef struct PollTask
{
	PollRequest request;
	text	   *cursor;			/* of the request, then of the answer */
	int			max_rows;
	text	   *client;			/* whose quota it is, or NULL */
	text	   *if_none_match;	/* NULL: there is none, or it does not count */
	bool		refuse_behind;	/* 503 where the snapshot is too old */
	PollResponse response;
	text	   *tag;			/* of a 200 and a 304 */
	bool		has_more;
} PollTask;

/*
 * Checks the request, and whether the client has anything left to spend: if not,
 * that is the response.  Its max_age becomes 0 if row-level security applies.
 */
extern void poll_response_begin(PollTask *task, ArrayType *feeds, Jsonb *scope,
								const TimestampTz *since);

/* Makes the response: 200 with a body, 304, 429 or 503, without further headers. */
extern void poll_response_finish(PollTask *task);

#endif							/* POLL_RESPONSE_H */
