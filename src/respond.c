/*
 * respond.c
 *		poll.respond(): a request over HTTP, answered completely.
 *
 * A gateway passes on what it has got and sends what it gets: status, headers
 * and body.  What is decided here, in this order: is it a request (400, 405),
 * are the feeds there for the caller (404), is the cursor good (410), may the
 * client ask now (429); then the answer is made, and if the client has it
 * already (If-None-Match) it is a 304, which costs no quota.
 *
 * The tag of an answer is a hash of all of it but the timestamp, which moves on
 * while nothing happens; so it is a weak one.  A hash of the cursors would be
 * less work, but what a caller sees may change without a change in the feed: by
 * a policy, a membership, a setting.
 *
 * Errors that a client can do something about are caught in a subtransaction,
 * and become problem details (RFC 9457).  On a standby those that come while
 * the answer is made stay errors, with the same SQLSTATE.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "answer.h"
#include "error.h"
#include "etag.h"
#include "guc.h"
#include "http.h"
#include "rate.h"

#define ENDPOINT		"poll"
#define METHODS			"GET, HEAD, POST, OPTIONS"
#define EXPOSED			"ETag, Link, RateLimit, RateLimit-Policy, Retry-After"

typedef struct PollResponse
{
	int			status;
	StringInfoData headers;		/* members of a JSON object */
	text	   *body;			/* or NULL */
} PollResponse;

/* A request to poll, from step to step. */
typedef struct PollTask
{
	Jsonb	   *json;
	PollHttpRequest http;
	PollRequest request;
	PollResponse response;
} PollTask;

PG_FUNCTION_INFO_V1(poll_ext_respond);

static void
add_header(PollResponse *response, const char *name, const char *value)
{
	if (response->headers.len > 0)
		appendStringInfoChar(&response->headers, ',');
	escape_json(&response->headers, name);
	appendStringInfoChar(&response->headers, ':');
	escape_json(&response->headers, value);
}

/* A query alone is a reference to the resource itself, wherever it is. */
static void
add_link(PollResponse *response, const PollHttpRequest *request, text *cursor, const char *relation)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '<');
	poll_http_append_query(&buf, request, cursor);
	appendStringInfo(&buf, ">; rel=\"%s\"", relation);
	add_header(response, "Link", buf.data);
}

/* ---- problems ---- */

static const char *
reason(int status)
{
	switch (status)
	{
		case 400:
			return "Bad Request";
		case 404:
			return "Not Found";
		case 405:
			return "Method Not Allowed";
		case 410:
			return "Gone";
		case 429:
			return "Too Many Requests";
		default:
			return "Service Unavailable";
	}
}

static void
append_member(StringInfo buf, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(buf, ",\"%s\":", name);
	escape_json(buf, value);
}

/* more: members of a JSON object, each after a comma */
static void
problem(PollResponse *response, int status, const char *detail, const char *more)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d",
					 reason(status), status);
	append_member(&buf, "detail", detail);
	appendStringInfo(&buf, "%s}", more);
	response->status = status;
	response->body = cstring_to_text_with_len(buf.data, buf.len);
	add_header(response, "Content-Type", "application/problem+json");
	add_header(response, "Cache-Control", "no-store");
}

/*
 * The status that tells of an error while the answer is made, or 0 for one that
 * the client did not cause and must not see: it may come from a policy or a
 * type, and tell of rows.
 */
static int
error_status(int sqlstate)
{
	switch (sqlstate)
	{
		case ERRCODE_POLL_BAD_REQUEST:
			return 400;
		case ERRCODE_POLL_NOT_FOUND:
			return 404;
		case ERRCODE_POLL_EXPIRED:
			return 410;
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return 503;
		default:
			return 0;
	}
}

/* The same while only what the client has sent is looked at. */
static int
request_error_status(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_DATA_EXCEPTION ||
		sqlstate == ERRCODE_STATEMENT_TOO_COMPLEX ? 400 : error_status(sqlstate);
}

static void
error_problem(PollResponse *response, int status, const ErrorData *error, const PollHttpRequest *request)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_member(&buf, "reason", error->detail);
	append_member(&buf, "hint", error->hint);
	append_member(&buf, "code", unpack_sql_state(error->sqlerrcode));
	problem(response, status, error->message, buf.data);
	if (status == 503)
		add_header(response, "Retry-After", "1");
	if (status == 410)
		add_link(response, request, NULL, "first");
}

/* ---- rate limits ---- */

static int64
whole_seconds(int64 microseconds)
{
	return (microseconds + 999999) / 1000000;
}

/* May the client ask?  If there is a limit, the headers say so. */
static bool
check_rate(PollResponse *response, const PollHttpRequest *request, bool peek)
{
	PollRate	rate;
	const char *name;

	if (request->client == NULL || !poll_ratetable_available())
		return true;
	rate = poll_rate_check(VARDATA_ANY(request->client), VARSIZE_ANY_EXHDR(request->client),
						   ENDPOINT, strlen(ENDPOINT), 1, peek);
	if (rate.policy == NULL || (peek && rate.allowed))
		return true;

	name = NameStr(rate.policy->name);
	if (!rate.allowed)
	{
		int64		seconds = Max(whole_seconds(rate.left.retry_after), 1);

		problem(response, 429, "too many requests",
				psprintf(",\"retry_after\":" INT64_FORMAT, seconds));
		add_header(response, "Retry-After", psprintf(INT64_FORMAT, seconds));
	}
	add_header(response, "RateLimit-Policy",
			   psprintf("\"%s\";q=%d;w=" INT64_FORMAT, name, rate.policy->limit.quota,
						whole_seconds((int64) rate.policy->limit.interval * 1000)));
	add_header(response, "RateLimit",
			   psprintf("\"%s\";r=%d;t=" INT64_FORMAT, name, rate.left.remaining,
						whole_seconds(rate.left.reset_after)));
	return rate.allowed;
}

/* ---- the answer ---- */

static text *
answer_tag(const PollAnswer *answer)
{
	PollDigest	digest;

	poll_digest_begin(&digest);
	poll_digest_add(&digest, VARDATA(answer->body), answer->lasting);
	return poll_etag_make("W/\"p1.", &digest);
}

/* Is it a request that can be answered?  If not, that is the response. */
static void
begin_poll(PollTask *task)
{
	PollHttpRequest *http = &task->http;

	poll_http_parse(task->json, http);
	poll_check_max_rows(http->max_rows);
	poll_request_init(&task->request, http->feeds, http->scope, http->cursor, http->since);
	(void) check_rate(&task->response, http, true);
}

static void
finish_poll(PollTask *task)
{
	PollResponse *response = &task->response;
	PollHttpRequest *http = &task->http;
	PollAnswer	answer = poll_answer(&task->request, http->cursor, http->max_rows);
	text	   *tag = answer_tag(&answer);

	if (http->if_none_match != NULL && strcmp(http->method, "POST") != 0 &&
		poll_if_none_match(http->if_none_match, tag))
		response->status = 304;
	else
	{
		if (!check_rate(response, http, false))
			return;
		response->status = 200;
		response->body = answer.body;
		add_header(response, "Content-Type", "application/json");
		if (answer.has_more)
			add_link(response, http, answer.cursor, "next");
	}
	add_header(response, "ETag", text_to_cstring(tag));
	add_header(response, "Cache-Control", "private, no-cache");
	add_header(response, "Vary", "Authorization");
}

/*
 * Runs a step, and makes a response of an error that the client can do
 * something about.
 */
static void
try_step(PollTask *task, void (*step) (PollTask *), int (*status_of) (int sqlstate))
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		step(task);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;
		int			status;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		status = status_of(error->sqlerrcode);
		if (status == 0)
			ReThrowError(error);
		resetStringInfo(&task->response.headers);
		error_problem(&task->response, status, error, &task->http);
	}
	PG_END_TRY();
}

static void
try_poll(PollTask *task)
{
	try_step(task, begin_poll, request_error_status);
	if (task->response.status != 0)
		return;

	/* a recovery conflict in a subtransaction would end the connection */
	if (RecoveryInProgress())
		finish_poll(task);
	else
		try_step(task, finish_poll, error_status);
}

static void
add_cors(PollResponse *response, bool preflight)
{
	if (poll_cors_origin[0] == '\0')
		return;
	add_header(response, "Access-Control-Allow-Origin", poll_cors_origin);
	if (preflight)
	{
		add_header(response, "Access-Control-Allow-Methods", METHODS);
		add_header(response, "Access-Control-Allow-Headers", "Authorization, Content-Type, If-None-Match");
		add_header(response, "Access-Control-Max-Age", "86400");
	}
	else
		add_header(response, "Access-Control-Expose-Headers", EXPOSED);
}

static void
respond(PollTask *task)
{
	PollResponse *response = &task->response;
	const char *method = JB_ROOT_IS_OBJECT(task->json) ? poll_http_method(task->json) : "GET";
	bool		options = strcmp(method, "OPTIONS") == 0;

	if (options)
	{
		response->status = 200;
		add_header(response, "Allow", METHODS);
	}
	else if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || strcmp(method, "POST") == 0)
		try_poll(task);
	else
	{
		problem(response, 405, "the method is not allowed", "");
		add_header(response, "Allow", METHODS);
	}
	add_cors(response, options);
	if (strcmp(method, "HEAD") == 0)
		response->body = NULL;
}

/*
 * poll.respond(request jsonb) returns (status int, headers jsonb, body text)
 */
Datum
poll_ext_respond(PG_FUNCTION_ARGS)
{
	PollTask   *task = palloc0(sizeof(PollTask));
	PollResponse *response = &task->response;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	task->json = PG_GETARG_JSONB_P(0);
	initStringInfo(&response->headers);
	respond(task);

	values[0] = Int32GetDatum(response->status);
	values[1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(psprintf("{%s}", response->headers.data)));
	values[2] = PointerGetDatum(response->body);
	nulls[2] = response->body == NULL;
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
