/*
 * json.c
 *		Values as JSON text, the same as row_to_json() writes them.
 *
 * row_to_json() looks up the type of every column for every row.  Here that
 * happens once per feed.  The kinds are those of json_categorize_type();
 * arrays, composites and types with a cast to json go through to_json().
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/jsonapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

#include "json.h"

static bool
has_json_cast(Oid type)
{
	Oid			function;

	return find_coercion_pathway(JSONOID, type, COERCION_EXPLICIT, &function) ==
		COERCION_PATH_FUNC;
}

static PollJsonKind
kind_of(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return POLL_JSON_BOOL;
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return POLL_JSON_INTEGER;
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			return POLL_JSON_NUMBER;
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return POLL_JSON_DATETIME;
		case JSONOID:
		case JSONBOID:
			return POLL_JSON_RAW;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return POLL_JSON_TEXT;
		default:
			/* types that are not built in may have a cast to json */
			if (type >= FirstNormalObjectId ? !type_is_enum(type) || has_json_cast(type) :
				(OidIsValid(get_element_type(type)) || type_is_rowtype(type)))
				return POLL_JSON_ANY;
			return POLL_JSON_STRING;
	}
}

void
poll_json_writer_init(PollJsonWriter *writer, const char *name, Oid type)
{
	StringInfoData label;
	Oid			function;
	bool		varlena;

	initStringInfo(&label);
	escape_json(&label, name);
	appendStringInfoChar(&label, ':');
	writer->label = label.data;
	writer->type = getBaseType(type);
	writer->kind = kind_of(writer->type);

	if (writer->kind == POLL_JSON_ANY)
	{
		/* to_json(anyelement) learns the type from its call expression */
		Node	   *arg = (Node *) makeNullConst(writer->type, -1, InvalidOid);

		fmgr_info_cxt(F_TO_JSON, &writer->function, CurrentMemoryContext);
		fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSON, JSONOID, list_make1(arg),
												 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
						   &writer->function);
	}
	else
	{
		getTypeOutputInfo(writer->type, &function, &varlena);
		fmgr_info_cxt(function, &writer->function, CurrentMemoryContext);
	}
}

static void
write_integer(StringInfo buf, Oid type, Datum value)
{
	char		number[MAXINT8LEN + 1];
	int			len;

	if (type == INT2OID)
		len = pg_itoa(DatumGetInt16(value), number);
	else if (type == INT4OID)
		len = pg_ltoa(DatumGetInt32(value), number);
	else
		len = pg_lltoa(DatumGetInt64(value), number);
	appendBinaryStringInfo(buf, number, len);
}

void
poll_json_write(StringInfo buf, PollJsonWriter *writer, Datum value)
{
	char		datetime[MAXDATELEN + 1];
	char	   *str;
	text	   *txt;

	switch (writer->kind)
	{
		case POLL_JSON_BOOL:
			appendStringInfoString(buf, DatumGetBool(value) ? "true" : "false");
			break;
		case POLL_JSON_INTEGER:
			write_integer(buf, writer->type, value);
			break;
		case POLL_JSON_NUMBER:
			str = OutputFunctionCall(&writer->function, value);
			if (IsValidJsonNumber(str, strlen(str)))
				appendStringInfoString(buf, str);
			else
				escape_json(buf, str);
			break;
		case POLL_JSON_DATETIME:
			appendStringInfoChar(buf, '"');
			appendStringInfoString(buf, JsonEncodeDateTime(datetime, value, writer->type, NULL));
			appendStringInfoChar(buf, '"');
			break;
		case POLL_JSON_RAW:
			appendStringInfoString(buf, OutputFunctionCall(&writer->function, value));
			break;
		case POLL_JSON_TEXT:
			escape_json(buf, TextDatumGetCString(value));
			break;
		case POLL_JSON_STRING:
			escape_json(buf, OutputFunctionCall(&writer->function, value));
			break;
		case POLL_JSON_ANY:
			txt = DatumGetTextPP(FunctionCall1(&writer->function, value));
			appendBinaryStringInfo(buf, VARDATA_ANY(txt), VARSIZE_ANY_EXHDR(txt));
			break;
	}
}
