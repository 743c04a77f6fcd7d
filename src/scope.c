/*
 * scope.c
 *		The scope of a request, {"room_id": 7}, as the log knows it.
 *
 * A feed with a scope is divided by the values of some columns; a request
 * names the part that it wants.  Values go through the columns' input and
 * output functions, so that 7, "7" and "07" are the same room.
 */
#include "postgres.h"

#include "access/relation.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "error.h"
#include "key.h"
#include "scope.h"

static void
bad_scope(const char *column, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_POLL_BAD_REQUEST),
			 errmsg("invalid scope"),
			 errdetail(detail, column),
			 errhint("Pass an object with a value for each scope column, as scope => '{\"%s\": ...}'.",
					 column)));
}

/* The text of a scalar; NULL for null. */
static char *
scalar_text(const JsonbValue *value, const char *column)
{
	switch (value->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			bad_scope(column, "The value for \"%s\" is not a string, a number, a boolean or null.");
			return NULL;
	}
}

/* Returns a hash of the column's type. */
static uint32
append_value(StringInfo buf, Relation rel, char *name, const char *str)
{
	PollKey    *column = poll_key_of_columns(rel, list_make1(name));
	Datum		value = (Datum) 0;

	if (str != NULL)
	{
		StringInfoData key;
		bool		valid;
		const char *data;

		initStringInfo(&key);
		poll_key_append_text(&key, str, strlen(str));
		data = key.data;
		poll_key_parse(column, &data, &key.len, 1, true, &value, &valid);
		if (!valid)
			bad_scope(name, "The value for \"%s\" is none of the column's type.");
	}
	poll_scope_append_value(buf, &column->columns[0], value, str == NULL);
	return hash_combine(murmurhash32(column->columns[0].type),
						murmurhash32((uint32) column->columns[0].typmod));
}

uint32
poll_scope_of_request(StringInfo buf, const PollFeed *feed, Jsonb *object, List **used)
{
	List	   *columns;
	List	   *scope;
	ListCell   *lc;
	Relation	rel;
	uint32		types = 0;

	poll_catalog_lists(feed->id, &columns, &scope);
	rel = poll_catalog_open_feed(feed);
	foreach(lc, scope)
	{
		char	   *name = lfirst(lc);
		JsonbValue *value = NULL;

		if (object != NULL && JB_ROOT_IS_OBJECT(object))
			value = getKeyJsonValueFromContainer(&object->root, name, strlen(name), NULL);
		if (value == NULL)
			bad_scope(name, "A feed is divided by \"%s\", and there is no value for it.");
		types = hash_combine(types, append_value(buf, rel, name, scalar_text(value, name)));
		*used = lappend(*used, name);
	}
	relation_close(rel, NoLock);
	return types;
}

void
poll_scope_check_used(Jsonb *object, List *used)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (object == NULL)
		return;
	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("the scope must be an object")));
	it = JsonbIteratorInit(&object->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		ListCell   *lc;
		bool		found = false;

		if (token != WJB_KEY)
			continue;
		foreach(lc, used)
			found = found || (strlen(lfirst(lc)) == (Size) value.val.string.len &&
							  memcmp(lfirst(lc), value.val.string.val, value.val.string.len) == 0);
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_POLL_BAD_REQUEST),
					 errmsg("invalid scope"),
					 errdetail("None of the feeds is divided by \"%s\".",
							   pnstrdup(value.val.string.val, value.val.string.len)),
					 errhint("The scope columns of each feed are in the view poll.feeds.")));
	}
}
