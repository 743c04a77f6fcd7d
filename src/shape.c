/*
 * shape.c
 *		What a feed shows of its table, as a text to compare.
 *
 * Which of the many commands change what a feed shows is not told by their
 * syntax.  So poll.shape has a text with the names and types of each feed's
 * columns, its scope and its key, and how the key is ordered, since a full
 * sync under way goes on in that order.  At the end of a command that touched a
 * tracked table the text is made again and compared.  It is dumped; in a
 * restore it comes before or after the keys that it tells of.
 *
 * The text is compared with the last one that was committed, whatever the
 * transaction's snapshot shows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/regproc.h"

#include "catalog.h"
#include "key.h"
#include "shape.h"
#include "track.h"

#define ANUM_SHAPE_FEED		1
#define ANUM_SHAPE_SHAPE	2

static void
append_collation(StringInfo buf, Oid collation)
{
	if (OidIsValid(collation))
		appendStringInfo(buf, " %s", quote_identifier(get_collation_name(collation)));
}

static void
append_column(StringInfo buf, Relation rel, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);

	appendStringInfo(buf, " %s %s", quote_identifier(NameStr(att->attname)),
					 format_type_be_qualified(att->atttypid));
}

static void
append_columns(StringInfo buf, Relation rel, List *names)
{
	ListCell   *lc;

	foreach(lc, names)
		append_column(buf, rel, poll_key_attnum(rel, lfirst(lc)));
}

static void
append_key(StringInfo buf, Relation rel, const PollKey *key)
{
	for (int i = 0; i < key->ncolumns; i++)
	{
		const PollKeyColumn *column = &key->columns[i];

		append_column(buf, rel, column->attnum);
		append_collation(buf, TupleDescAttr(RelationGetDescr(rel), column->attnum - 1)->attcollation);
		append_collation(buf, column->collation);
		appendStringInfo(buf, " %s", format_operator_qualified(column->sort_operator));
	}
}

char *
poll_shape(Relation rel, List *columns, List *scope)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "columns");
	append_columns(&buf, rel, columns);
	for (int i = 0; columns == NIL && i < RelationGetNumberOfAttributes(rel); i++)
		if (!TupleDescAttr(RelationGetDescr(rel), i)->attisdropped)
			append_column(&buf, rel, i + 1);
	appendStringInfoString(&buf, "; scope");
	append_columns(&buf, rel, scope);
	appendStringInfoString(&buf, "; key");
	append_key(&buf, rel, poll_key_build(rel));
	return buf.data;
}

void
poll_shape_store(int64 feed, const char *shape)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2] = {Int64GetDatum(feed), CStringGetTextDatum(shape)};

	poll_run_as_owner("INSERT INTO poll.shape (feed, shape) VALUES ($1, $2)",
					  2, types, values, NULL);
}

/* The remembered shape, palloc'd, or NULL. */
static char *
find_shape(int64 feed)
{
	Relation	rel = poll_catalog_open(poll_catalog_shape(), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *shape = NULL;

	ScanKeyInit(&key, ANUM_SHAPE_FEED, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(feed));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		shape = TextDatumGetCString(heap_getattr(tuple, ANUM_SHAPE_SHAPE, RelationGetDescr(rel),
												 &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return shape;
}

bool
poll_shape_changed(int64 feed, const char *shape)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2] = {Int64GetDatum(feed), CStringGetTextDatum(shape)};
	char	   *remembered = find_shape(feed);

	if (remembered == NULL)
		return true;
	if (strcmp(remembered, shape) == 0)
		return false;
	poll_change_feed("UPDATE poll.shape SET shape = $2 WHERE feed OPERATOR(pg_catalog.=) $1",
					 2, types, values, NULL);
	return true;
}
