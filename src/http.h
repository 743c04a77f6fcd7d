/*
 * http.h
 *		What an HTTP request to poll asks for.
 */
#ifndef POLL_HTTP_H
#define POLL_HTTP_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/jsonb.h"

typedef struct PollHttpRequest
{
	char	   *method;
	text	   *if_none_match;	/* NULL: no such header */
	text	   *client;			/* whose quota it is, or NULL */

	/* the parameters, of the query or of the body */
	ArrayType  *feeds;
	char	   *feeds_list;		/* the same, as it came */
	char	   *scope_text;
	Jsonb	   *scope;
	text	   *cursor;
	TimestampTz *since;
	char	   *since_text;
	int			max_rows;
	bool		has_max_rows;	/* it was given */
} PollHttpRequest;

/*
 * The method alone, and the rest: {"method", "query", "headers",
 * "body", "client"}.  Errors: PT400, or what a type says of a bad value
 * (class 22).
 */
extern char *poll_http_method(Jsonb *request);
extern void poll_http_parse(Jsonb *request, PollHttpRequest *result);

/* Appends ? and the parameters, with that cursor, or with none. */
extern void poll_http_append_query(StringInfo buf, const PollHttpRequest *request, text *cursor);

#endif							/* POLL_HTTP_H */
