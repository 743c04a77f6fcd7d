/*
 * response.c
 *		The response to a request over HTTP, from whatever function answers it.
 *
 * The status, the headers, and a poll whose tag the client may have already, or
 * whose client may have to wait.  How that is sent is up to the function: as a
 * row (respond.c), or by settings and errors that PostgREST knows (pgrst.c).
 *
 * The tag of an answer is a hash of all of it but the timestamp, which moves on
 * while nothing happens; so it is a weak one.  A hash of the cursors would be
 * less work, but what a caller sees may change without a change in the feed: by
 * a policy, a membership, a setting.
 *
 * A cache that many clients share may keep an answer if poll_ext.public_max_age
 * says so for the role that reads, and no table has row-level security, with which
 * not even one role always sees the same.  The word "public" is left out on
 * purpose: it would allow sharing also where a request had an Authorization (RFC
 * 9111, 3.5).  What one client has left of its quota is not in such an answer.
 */
#include "postgres.h"

#include <math.h>

#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/rls.h"

#include "etag.h"
#include "rate.h"
#include "response.h"
#include "sharing.h"

#define ENDPOINT	"poll"

/* ---- headers ---- */

void
poll_response_header(PollResponse *response, const char *name, const char *value)
{
	response->headers = lappend(response->headers, unconstify(char *, name));
	response->headers = lappend(response->headers, unconstify(char *, value));
}

void
poll_response_write(StringInfo buf, const PollResponse *response, const char *between)
{
	for (int i = 0; i < list_length(response->headers); i += 2)
	{
		if (i > 0)
			appendStringInfoString(buf, between);
		escape_json(buf, list_nth(response->headers, i));
		appendStringInfoChar(buf, ':');
		escape_json(buf, list_nth(response->headers, i + 1));
	}
}

void
poll_response_validator(PollResponse *response, text *tag, const char *vary)
{
	poll_response_header(response, "ETag", text_to_cstring(tag));
	poll_response_header(response, "Cache-Control", response->max_age == 0 ? "private, no-cache" :
						 psprintf("max-age=%d, stale-while-revalidate=%d", response->max_age, response->max_age));
	poll_response_header(response, "Vary", vary);
}

/* Longer ones, of some hundred feeds, would be of no use to most clients. */
#define MAX_LINK	4000

/* A query alone is a reference to the resource itself, wherever it is. */
void
poll_response_link(PollResponse *response, const PollHttpRequest *request, text *cursor,
				   const char *relation)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '<');
	poll_http_append_query(&buf, request, cursor);
	if (buf.len > MAX_LINK)
		return;
	appendStringInfo(&buf, ">; rel=\"%s\"", relation);
	poll_response_header(response, "Link", buf.data);
}

/* ---- rate limits ---- */

static int64
whole_seconds(int64 microseconds)
{
	return (microseconds + 999999) / 1000000;
}

bool
poll_response_rate(PollResponse *response, text *client, const char *endpoint,
				   Size endpoint_length, bool peek)
{
	PollRate	rate;
	const char *name;

	if (client == NULL || !poll_ratetable_available())
		return true;
	rate = poll_rate_check(VARDATA_ANY(client), VARSIZE_ANY_EXHDR(client),
						   endpoint, endpoint_length, 1, peek);
	if (rate.policy == NULL || (rate.allowed && (peek || response->max_age > 0)))
		return true;

	name = NameStr(rate.policy->name);
	if (!rate.allowed)
	{
		if (peek)
			poll_ratetable_refused(&rate.policy->endpoint);
		response->status = 429;
		response->retry_after = Max(whole_seconds(rate.left.retry_after), 1);
		poll_response_header(response, "Retry-After",
							 psprintf(INT64_FORMAT, response->retry_after));
	}
	poll_response_header(response, "RateLimit-Policy",
						 psprintf("\"%s\";q=%d;w=" INT64_FORMAT, name, rate.policy->limit.quota,
								  whole_seconds((int64) rate.policy->limit.interval * 1000)));
	poll_response_header(response, "RateLimit",
						 psprintf("\"%s\";r=%d;t=" INT64_FORMAT, name, rate.left.remaining,
								  whole_seconds(rate.left.reset_after)));
	return rate.allowed;
}

/* ---- a poll ---- */

static bool
check_rate(PollTask *task, bool peek)
{
	return poll_response_rate(&task->response, task->client, ENDPOINT, strlen(ENDPOINT), peek);
}

static void
set_status(PollTask *task, int status, const PollAnswer *answer)
{
	task->response.status = status;
	if (!answer->has_more)
		poll_response_header(&task->response, "X-Poll-Interval",
							 psprintf("%.0f", Max(rint(answer->poll_after), 1)));
}

/*
 * Should it be switched on a moment later, what is left of the rows is less than
 * what everybody could see a moment ago.
 */
static bool
has_row_security(const PollFeedSet *set)
{
	for (int i = 0; i < set->n; i++)
		if (set->members[i].row_security != RLS_NONE)
			return true;
	return false;
}

void
poll_response_begin(PollTask *task, ArrayType *feeds, Jsonb *scope, const TimestampTz *since)
{
	poll_check_max_rows(task->max_rows);
	poll_request_init(&task->request, feeds, scope, task->cursor, since);
	if (task->response.max_age > 0 && has_row_security(task->request.set))
		task->response.max_age = 0;
	(void) check_rate(task, true);
}

void
poll_response_finish(PollTask *task)
{
	PollAnswer	answer = poll_shared_answer(&task->request, task->cursor, task->max_rows, &task->tag);

	if (answer.behind && task->refuse_behind)
	{
		task->response.status = 503;
		return;
	}
	if (task->if_none_match != NULL && poll_if_none_match(task->if_none_match, task->tag, true))
	{
		/* a page that was read is paid for, also if it need not be sent */
		if (answer.empty || check_rate(task, false))
			set_status(task, 304, &answer);
		return;
	}
	if (!check_rate(task, false))
		return;
	set_status(task, 200, &answer);
	task->response.body = answer.body;
	task->cursor = answer.cursor;
	task->has_more = answer.has_more;
}
