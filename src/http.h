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

#define POLL_HTTP_DEFAULT_MAX_ROWS	100

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
	int			wait;			/* for news, in ms */
} PollHttpRequest;

/*
 * The method alone, and the rest: {"method", "query", "headers",
 * "body", "client" or "address"}.  Errors: PT400, or what a type says of a bad value
 * (class 22).
 */
extern char *poll_http_method(Jsonb *request);
extern void poll_http_parse(Jsonb *request, PollHttpRequest *result);

/*
 * A member of a JSON object; NULL if there is none, or null.  As text: of a
 * string what it says, of others their JSON.
 */
extern JsonbValue *poll_http_member(Jsonb *object, const char *name);
extern char *poll_http_text(Jsonb *object, const char *name);

/* The same, as a whole number of at least 0; -1 if there is none.  Errors: PT400. */
extern int	poll_http_number(Jsonb *object, const char *name);

/* The array that a JSON array of feeds is.  Errors: PT400. */
extern ArrayType *poll_http_feeds(JsonbValue *array);

/* Appends ? and the parameters, with that cursor, or with none. */
extern void poll_http_append_query(StringInfo buf, const PollHttpRequest *request, text *cursor);

#endif							/* POLL_HTTP_H */
