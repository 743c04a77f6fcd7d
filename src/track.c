/*
 * track.c
 *		poll.track() and poll.untrack().
 *
 * Tracking a table creates a row trigger on it and a row in the registry, in
 * one transaction.  CREATE TRIGGER's lock waits for all writers of the table,
 * so when it commits, every change is either captured or was committed before,
 * and a snapshot that shows the feed shows the latter.
 *
 * The trigger is created as the caller, the registry is written as its owner:
 * nobody else may touch it.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "ddl.h"
#include "error.h"
#include "key.h"
#include "shape.h"
#include "track.h"

PG_FUNCTION_INFO_V1(poll_ext_track);
PG_FUNCTION_INFO_V1(poll_ext_untrack);

/* [A-Za-z0-9_][A-Za-z0-9_.-]{0,62} */
static bool
is_feed_name(const char *name)
{
	Size		len = strlen(name);

	return len > 0 && len < NAMEDATALEN && name[0] != '.' && name[0] != '-' &&
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == len;
}

static void
check_feed_name(const char *name)
{
	if (!is_feed_name(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("\"%s\" cannot be the name of a feed", name),
				 errdetail("A feed's name has 1 to %d letters, digits, \"_\", \".\" and \"-\", and does not start with \".\" or \"-\".",
						   NAMEDATALEN - 1),
				 errhint("Pass another name as the argument feed.")));
}

static void
check_owner(Relation rel)
{
	if (!poll_compat_owns_relation(RelationGetRelid(rel), GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
}

static void
check_kind(Relation rel)
{
	const char *name = RelationGetRelationName(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot track \"%s\"", name),
				 errdetail("Only tables can be tracked, not views, materialized views, foreign tables, sequences or indexes."),
				 errhint("Track the tables that it is made of.")));
	if (IsSystemRelation(rel) || RelationGetNamespace(rel) == get_namespace_oid(POLL_SCHEMA, false))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot track system table \"%s\"", name)));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot track temporary table \"%s\"", name),
				 errdetail("Only the session that created it could read it.")));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot track unlogged table \"%s\"", name),
				 errdetail("A crash would empty it without a trace in the change log."),
				 errhint("ALTER TABLE ... SET LOGGED first.")));
}

/* Types whose text depends on the search path and on the names of others. */
static bool
is_alias_type(Oid type)
{
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGCOLLATIONOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
			return true;
		default:
			return false;
	}
}

static void
check_types(Relation rel, const PollKey *key, const char *what)
{
	for (int i = 0; i < key->ncolumns; i++)
		if (is_alias_type(key->columns[i].type))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot track table \"%s\"", RelationGetRelationName(rel)),
					 errdetail("A column of its %s is of type %s, whose values are shown as names that can change.",
							   what, format_type_be(key->columns[i].type)),
					 errhint("Use a column of type oid or text.")));
}

static void
check_key(Relation rel)
{
	if (!OidIsValid(poll_key_index(rel)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no key", RelationGetRelationName(rel)),
				 errdetail("A change is identified by the primary key or the replica identity index of its table."),
				 errhint("Add a primary key (not deferrable), or use ALTER TABLE ... REPLICA IDENTITY USING INDEX.")));
	check_types(rel, poll_key_build(rel), "key");
}

static void
check_scope(Relation rel, List *scope)
{
	if (list_length(scope) > INDEX_MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("scope must not have more than %d columns", INDEX_MAX_KEYS)));
	check_types(rel, poll_key_of_columns(rel, scope), "scope");
}

Datum
poll_run(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	int			result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
	bool		isnull;

	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	if (SPI_processed == 0 || SPI_tuptable == NULL)
		return (Datum) 0;
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
}

Datum
poll_run_as_owner(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	Oid			owner = poll_catalog_owner(poll_catalog_feed());
	Oid			userid;
	int			context;
	Datum		result;

	/* an error puts the user back, too */
	GetUserIdAndSecContext(&userid, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
	result = poll_run(sql, nargs, types, values, nulls);
	SetUserIdAndSecContext(userid, context);
	return result;
}

void
poll_change_feed(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	poll_run_as_owner(sql, nargs, types, values, nulls);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the feed was tracked after the snapshot of this transaction was taken"),
				 errhint("Try again in a new transaction.")));
}

void
poll_forget_feed(int64 id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(id)};

	poll_change_feed("DELETE FROM poll.feed WHERE id OPERATOR(pg_catalog.=) $1",
					 1, types, values, NULL);
	poll_run_as_owner("DELETE FROM poll.shape WHERE feed OPERATOR(pg_catalog.=) $1",
					  1, types, values, NULL);
}

/* The name must be free, but for a feed whose table is gone. */
static void
check_free(const char *name)
{
	PollFeed	feed;

	if (!poll_catalog_find(name, &feed))
		return;
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(feed.relid)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("feed \"%s\" already exists", name),
				 errdetail("It tracks table %s.", poll_catalog_table_name(feed.relid)),
				 errhint("Pass another name as the argument feed, or use poll.untrack().")));
	poll_forget_feed(feed.id);
}

/* An array of names, which must be those of columns, each once. */
static List *
column_names(Relation rel, ArrayType *array, const char *argument)
{
	List	   *names = NIL;
	List	   *attnums = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(array, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &elements, &nulls, &n);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", argument)));
	for (int i = 0; i < n; i++)
	{
		AttrNumber	attnum;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not contain nulls", argument)));
		attnum = poll_key_attnum(rel, NameStr(*DatumGetName(elements[i])));
		if (list_member_int(attnums, attnum))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("column \"%s\" appears twice in %s",
							NameStr(*DatumGetName(elements[i])), argument)));
		attnums = lappend_int(attnums, attnum);
		names = lappend(names, NameStr(*DatumGetName(elements[i])));
	}
	return names;
}

/* One of that name is left from a table that was dumped without the registry. */
static void
create_triggers(const char *table, int64 id, bool always)
{
	poll_run(psprintf("CREATE OR REPLACE TRIGGER " POLL_CAPTURE_TRIGGER INT64_FORMAT
					  " AFTER INSERT OR UPDATE OR DELETE ON %s"
					  " FOR EACH ROW EXECUTE FUNCTION poll.capture('" INT64_FORMAT "')",
					  id, table, id), 0, NULL, NULL, NULL);
	if (always)
		poll_run(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER " POLL_CAPTURE_TRIGGER INT64_FORMAT,
						  table, id), 0, NULL, NULL, NULL);
}

/* false for null */
static bool
bool_arg(FunctionCallInfo fcinfo, int argno)
{
	return !PG_ARGISNULL(argno) && PG_GETARG_BOOL(argno);
}

/*
 * The table, its writers locked out, those of its partitions too.  Ownership
 * first: others must not be able to lock it.
 */
static Relation
open_table(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	check_owner(rel);
	check_kind(rel);
	relation_close(rel, AccessShareLock);
	rel = table_open(relid, ShareRowExclusiveLock);
	check_owner(rel);
	check_kind(rel);
	(void) find_all_inheritors(relid, ShareRowExclusiveLock, NULL);
	return rel;
}

/* Adds it to the registry, with the arguments of track(); returns its id. */
static int64
insert_feed(FunctionCallInfo fcinfo, const char *name)
{
	Oid			types[7] = {TEXTOID, REGCLASSOID, NAMEARRAYOID, NAMEARRAYOID, BOOLOID, BOOLOID,
	TIMESTAMPTZOID};
	Datum		values[7];
	char		nulls[8] = "       ";

	values[0] = CStringGetTextDatum(name);
	for (int i = 2; i <= 3; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	values[1] = PG_GETARG_DATUM(0);
	values[4] = BoolGetDatum(bool_arg(fcinfo, 4));
	values[5] = BoolGetDatum(bool_arg(fcinfo, 5));
	/* what was not captured has become visible before this */
	values[6] = TimestampTzGetDatum(GetCurrentTimestamp());
	return DatumGetInt64(poll_run_as_owner("INSERT INTO poll.feed (name, relation, columns, scope,"
										   " always, expose_deletes, tracked_at)"
										   " VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
										   7, types, values, nulls));
}

/*
 * poll.track(relation regclass, feed text, columns name[], scope name[],
 * always bool, expose_deletes bool) returns text
 */
Datum
poll_ext_track(PG_FUNCTION_ARGS)
{
	Relation	rel;
	Oid			relid = PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0);
	bool		always = bool_arg(fcinfo, 4);
	List	   *columns = NIL;
	List	   *scope = NIL;
	char	   *name;
	char	   *table;
	char	   *shape;
	int64		id;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("relation must not be null")));
	rel = open_table(relid);
	check_key(rel);
	name = PG_ARGISNULL(1) ? pstrdup(RelationGetRelationName(rel)) :
		text_to_cstring(PG_GETARG_TEXT_PP(1));
	check_feed_name(name);
	if (!PG_ARGISNULL(2))
		columns = column_names(rel, PG_GETARG_ARRAYTYPE_P(2), "columns");
	if (!PG_ARGISNULL(3))
	{
		scope = column_names(rel, PG_GETARG_ARRAYTYPE_P(3), "scope");
		check_scope(rel, scope);
	}
	table = poll_catalog_table_name(relid);
	shape = poll_shape(rel, columns, scope);
	table_close(rel, NoLock);	/* ALTER TABLE wants it unused */

	/*
	 * a full sync must not hand out what a crash would take back with the
	 * feed
	 */
	ForceSyncCommit();

	/* one at a time, so that two cannot find the same name free */
	LockRelationOid(poll_catalog_feed(), ShareRowExclusiveLock);
	SPI_connect();
	check_free(name);
	id = insert_feed(fcinfo, name);
	create_triggers(table, id, always);
	poll_truncate_triggers_create(relid, id, always);
	poll_shape_store(id, shape);
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

static void
find_feed(const char *name, PollFeed *feed)
{
	if (!poll_catalog_find(name, feed))
		ereport(ERROR,
				(errcode(ERRCODE_POLL_NOT_FOUND),
				 errmsg("unknown feed"),
				 errdetail("There is no feed \"%s\".", name)));
}

/* poll.untrack(feed text) */
Datum
poll_ext_untrack(PG_FUNCTION_ARGS)
{
	PollFeed	feed;
	PollFeed	again;
	Relation	rel;
	char	   *name;
	char	   *table = NULL;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("feed must not be null")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	find_feed(name, &feed);

	rel = try_relation_open(feed.relid, AccessShareLock);
	if (rel != NULL)
	{
		check_owner(rel);
		relation_close(rel, AccessShareLock);
		rel = try_relation_open(feed.relid, ShareRowExclusiveLock);
	}
	if (rel != NULL)
	{
		check_owner(rel);
		table = poll_catalog_table_name(feed.relid);
		relation_close(rel, NoLock);
	}
	else if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to untrack a feed whose table was dropped")));

	ForceSyncCommit();

	/* somebody may have been faster */
	LockRelationOid(poll_catalog_feed(), ShareRowExclusiveLock);
	find_feed(name, &again);
	if (again.id != feed.id)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("feed \"%s\" was tracked anew meanwhile", name),
				 errhint("Try again.")));

	SPI_connect();
	poll_forget_feed(feed.id);	/* first, or the event triggers would do it */
	if (table != NULL)
	{
		poll_run(psprintf("DROP TRIGGER IF EXISTS " POLL_CAPTURE_TRIGGER INT64_FORMAT " ON %s",
						  feed.id, table), 0, NULL, NULL, NULL);
		poll_truncate_triggers_drop(feed.relid, feed.id);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
