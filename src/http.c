/*
 * http.c
 *		What an HTTP request to poll asks for.
 *
 * A gateway hands over what it got, as JSON: it need not know what the
 * parameters mean.  They come in the query, or in the JSON object that is the
 * body of a POST, where feeds may be an array and scope an object.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "error.h"
#include "http.h"
#include "network.h"

/* the longest wait that is asked for, in seconds: what most proxies allow */
#define MAX_WAIT	25

static void
bad_request(const char *message, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_POLL_BAD_REQUEST),
			 errmsg_internal("%s", message),
			 detail ? errdetail_internal("%s", detail) : 0));
}

/* ---- JSON ---- */

JsonbValue *
poll_http_member(Jsonb *object, const char *name)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&object->root, name, strlen(name), NULL);

	return value == NULL || value->type == jbvNull ? NULL : value;
}

char *
poll_http_text(Jsonb *object, const char *name)
{
	JsonbValue *value = poll_http_member(object, name);

	if (value == NULL)
		return NULL;
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	return JsonbToCString(NULL, &JsonbValueToJsonb(value)->root, 0);
}

int
poll_http_number(Jsonb *object, const char *name)
{
	JsonbValue *value = poll_http_member(object, name);
	Datum		number;

	if (value == NULL)
		return -1;
	if (value->type != jbvNumeric)
		bad_request("a member of the request is no number", NULL);
	number = DirectFunctionCall1(numeric_int4, NumericGetDatum(value->val.numeric));
	if (DatumGetInt32(number) < 0)
		bad_request("a member of the request is negative", NULL);
	return DatumGetInt32(number);
}

static Jsonb *
parse_json(const char *json)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
}

/* ---- URLs ---- */

static int
hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' :
		c >= 'a' && c <= 'f' ? c - 'a' + 10 :
		c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* What a part of a query, in UTF-8, says. */
static char *
url_decode(const char *src, const char *end)
{
	char	   *result = palloc(end - src + 1);
	char	   *dst = result;

	while (src < end)
	{
		char		c = *src++;

		if (c == '+')
			c = ' ';
		else if (c == '%')
		{
			if (end - src < 2 || hex_digit(src[0]) < 0 || hex_digit(src[1]) < 0)
				bad_request("the query is not percent-encoded", NULL);
			c = (char) (hex_digit(src[0]) << 4 | hex_digit(src[1]));
			src += 2;
		}
		if (c == '\0')
			bad_request("the query has a null byte", NULL);
		*dst++ = c;
	}
	*dst = '\0';
	return pg_any_to_server(result, dst - result, PG_UTF8);
}

static void
append_encoded(StringInfo buf, const char *src)
{
	src = pg_server_to_any(src, strlen(src), PG_UTF8);
	for (; *src; src++)
	{
		unsigned char c = *src;

		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			strchr("-._~,/", c) != NULL)
			appendStringInfoChar(buf, c);
		else
			appendStringInfo(buf, "%%%02X", c);
	}
}

/* The parameter of that name, the first if there are several; or NULL. */
static char *
query_parameter(const char *query, const char *name)
{
	Size		length = strlen(name);

	for (;;)
	{
		const char *end = query + strcspn(query, "&");

		if (strncmp(query, name, length) == 0 && query[length] == '=')
			return url_decode(query + length + 1, end);
		if (*end == '\0')
			return NULL;
		query = end + 1;
	}
}

static void
append_parameter(StringInfo buf, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(buf, "%s=", name);
	append_encoded(buf, value);
	appendStringInfoChar(buf, '&');
}

void
poll_http_append_query(StringInfo buf, const PollHttpRequest *request, text *cursor)
{
	appendStringInfoChar(buf, '?');
	append_parameter(buf, "feeds", request->feeds_list);
	append_parameter(buf, "scope", request->scope_text);
	if (request->has_max_rows)
		append_parameter(buf, "max_rows", psprintf("%d", request->max_rows));
	if (cursor != NULL)
		append_parameter(buf, "cursor", text_to_cstring(cursor));
	buf->data[--buf->len] = '\0';	/* the last & */
}

/* ---- the request ---- */

char *
poll_http_method(Jsonb *request)
{
	char	   *method;

	if (!JB_ROOT_IS_OBJECT(request))
		bad_request("the request is not a JSON object", NULL);
	method = poll_http_text(request, "method");
	return method ? method : pstrdup("GET");
}

/* A list with commas, or an array as SQL writes it, which PostgREST takes. */
static ArrayType *
split_feeds(char *list)
{
	ArrayBuildState *state = NULL;

	if (*list == '{')
		return DatumGetArrayTypeP(OidInputFunctionCall(F_ARRAY_IN, list, TEXTOID, -1));
	for (;;)
	{
		char	   *end = list + strcspn(list, ",");

		state = accumArrayResult(state, PointerGetDatum(cstring_to_text_with_len(list, end - list)),
								 false, TEXTOID, CurrentMemoryContext);
		if (*end == '\0')
			break;
		list = end + 1;
	}
	return DatumGetArrayTypeP(makeArrayResult(state, CurrentMemoryContext));
}

static void
bad_feeds(void)
{
	bad_request("feeds must be an array of strings", NULL);
}

/* An array of strings, as a list with commas. */
static char *
join_feeds(JsonbValue *array)
{
	JsonbIterator *iterator = JsonbIteratorInit(array->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue	value;
	StringInfoData buf;
	bool		first = true;

	initStringInfo(&buf);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_BEGIN_OBJECT || (token == WJB_ELEM && value.type != jbvString))
			bad_feeds();
		if (token == WJB_ELEM)
		{
			if (!first)
				appendStringInfoChar(&buf, ',');
			first = false;
			appendBinaryStringInfo(&buf, value.val.string.val, value.val.string.len);
		}
	}
	return buf.data;
}

ArrayType *
poll_http_feeds(JsonbValue *array)
{
	if (array->type != jbvBinary)
		bad_feeds();
	return split_feeds(join_feeds(array));
}

/* Where the parameters are. */
typedef struct Parameters
{
	const char *query;			/* or else: */
	Jsonb	   *body;
} Parameters;

static char *
parameter(const Parameters *parameters, const char *name)
{
	char	   *value = parameters->body ? poll_http_text(parameters->body, name) :
	query_parameter(parameters->query, name);

	return value && *value ? value : NULL;
}

static char *
feeds_parameter(const Parameters *parameters)
{
	JsonbValue *value = parameters->body ? poll_http_member(parameters->body, "feeds") : NULL;
	char	   *list = value && value->type == jbvBinary ? join_feeds(value) :
	parameter(parameters, "feeds");

	if (list == NULL || *list == '\0')
		bad_request("the parameter feeds is missing", "It is a list of names, such as feeds=messages,rooms.");
	return list;
}

static Jsonb *
body_object(Jsonb *request)
{
	char	   *json = poll_http_text(request, "body");
	Jsonb	   *body;

	if (json == NULL)
		bad_request("the body is missing", NULL);
	body = parse_json(json);
	if (!JB_ROOT_IS_OBJECT(body))
		bad_request("the body is not a JSON object", NULL);
	return body;
}

static void
parse_headers(Jsonb *request, PollHttpRequest *result)
{
	JsonbValue *headers = poll_http_member(request, "headers");
	char	   *value;

	if (headers == NULL)
		return;
	if (headers->type != jbvBinary || !JsonContainerIsObject(headers->val.binary.data))
		bad_request("the headers are not a JSON object", NULL);
	value = poll_http_text(JsonbValueToJsonb(headers), "if-none-match");
	result->if_none_match = value ? cstring_to_text(value) : NULL;
}

/* Who asks: by a name, or by an address. */
static text *
parse_client(Jsonb *request)
{
	char	   *client = poll_http_text(request, "client");
	char	   *address = poll_http_text(request, "address");

	if (client != NULL)
		return cstring_to_text(client);
	if (address != NULL)
		return poll_client_network(DatumGetInetPP(DirectFunctionCall1(inet_in, CStringGetDatum(address))));
	return NULL;
}

/* Seconds, as milliseconds. */
static int
parse_wait(const char *value)
{
	double		seconds = DatumGetFloat8(DirectFunctionCall1(float8in, CStringGetDatum(value)));

	if (!(seconds >= 0))
		bad_request("wait must be a number of seconds", NULL);
	return (int) (Min(seconds, MAX_WAIT) * 1000);
}

void
poll_http_parse(Jsonb *request, PollHttpRequest *result)
{
	Parameters	parameters = {0};
	char	   *value;

	memset(result, 0, sizeof(*result));
	result->method = poll_http_method(request);
	result->client = parse_client(request);
	parse_headers(request, result);

	if (strcmp(result->method, "POST") == 0)
		parameters.body = body_object(request);
	else
	{
		value = poll_http_text(request, "query");
		parameters.query = value == NULL ? "" : *value == '?' ? value + 1 : value;
	}
	result->feeds_list = feeds_parameter(&parameters);
	result->feeds = split_feeds(result->feeds_list);
	value = parameter(&parameters, "cursor");
	result->cursor = value ? cstring_to_text(value) : NULL;
	result->scope_text = parameter(&parameters, "scope");
	if (result->scope_text)
		result->scope = parse_json(result->scope_text);
	result->since_text = parameter(&parameters, "since");
	if (result->since_text)
	{
		result->since = palloc(sizeof(TimestampTz));
		*result->since = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
																 CStringGetDatum(result->since_text),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	}
	value = parameter(&parameters, "max_rows");
	result->has_max_rows = value != NULL;
	result->max_rows = value ? pg_strtoint32(value) : POLL_HTTP_DEFAULT_MAX_ROWS;
	value = parameter(&parameters, "wait");
	result->wait = value ? parse_wait(value) : 0;
}
