/*
 * ddl.c
 *		What happens to a tracked table beside its rows changing.
 *
 * Barriers.  TRUNCATE logs the op "truncate".  What gives rows other contents,
 * takes them away or brings them without a row trigger logs "reset", and a
 * poll that meets that is told to start again: a rewrite that computes a
 * column, another key, columns that come, go or change their names or types,
 * partitions with rows that come or go, capture switched off or on.  Barriers
 * are in the feed's own channel, which every poll of the feed reads, whatever
 * its scope.
 *
 * Shape.  Which of the many commands change what a feed shows is not told by
 * their syntax: poll.shape has a text with the columns and the key of each
 * feed, and at the end of a command that touched a tracked table the text is
 * made again and compared.  In a restore the text comes with the dump, before
 * or after the keys that it tells of.
 *
 * Truncate.  Polls deliver transactions in the order of their xids, and one
 * with a lower xid may well have written after the TRUNCATE: its rows would be
 * delivered first, and the client would throw them away.  Every such
 * transaction was open when TRUNCATE had its lock, since nobody keeps a lock
 * beyond the end of the transaction.  So the entry lists the xids that were
 * open then, and a poll that finds changes by one of them resets (changes.c).
 *
 * Partitions.  The row trigger of a partitioned table is cloned by the server
 * to its partitions, statement triggers are not: they are created here, one
 * for each partition, now and when partitions come (CREATE TABLE, ATTACH).
 *
 * Event triggers run as whoever runs the command; only the registry's tables
 * are written as their owner.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "capture.h"
#include "catalog.h"
#include "ddl.h"
#include "key.h"
#include "snapshot.h"
#include "track.h"
#include "varint.h"

/* more open transactions than this: no list, but a reset */
#define MAX_OPEN_AT_TRUNCATE	256

/* Is it we who run a command now? */
static bool own_command = false;

PG_FUNCTION_INFO_V1(poll_ext_capture_truncate);
PG_FUNCTION_INFO_V1(poll_ext_ddl_start);
PG_FUNCTION_INFO_V1(poll_ext_ddl_end);
PG_FUNCTION_INFO_V1(poll_ext_ddl_drop);
PG_FUNCTION_INFO_V1(poll_ext_ddl_rewrite);

/* ---- shape ---- */

static void
append_shape(StringInfo buf, Relation rel, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);

	appendStringInfo(buf, "%s%s %s", buf->len > 0 ? ", " : "",
					 quote_identifier(NameStr(att->attname)),
					 format_type_be_qualified(att->atttypid));
}

char *
poll_shape(Relation rel, List *columns)
{
	StringInfoData shape;
	StringInfoData key;
	ListCell   *lc;

	initStringInfo(&shape);
	foreach(lc, columns)
		append_shape(&shape, rel, poll_key_attnum(rel, lfirst(lc)));
	for (int i = 0; columns == NIL && i < RelationGetNumberOfAttributes(rel); i++)
		if (!TupleDescAttr(RelationGetDescr(rel), i)->attisdropped)
			append_shape(&shape, rel, i + 1);

	initStringInfo(&key);
	if (OidIsValid(poll_key_index(rel)))
	{
		PollKey    *columns_of_key = poll_key_build(rel);

		for (int i = 0; i < columns_of_key->ncolumns; i++)
			append_shape(&key, rel, columns_of_key->columns[i].attnum);
	}
	return psprintf("%s; key %s", shape.data, key.data);
}

void
poll_shape_store(int64 feed, const char *shape)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2] = {Int64GetDatum(feed), CStringGetTextDatum(shape)};

	poll_run_as_owner("INSERT INTO poll.shape (feed, shape) VALUES ($1, $2)",
					  2, types, values, NULL);
}

static bool
shape_is(int64 feed, const char *shape)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2] = {Int64GetDatum(feed), CStringGetTextDatum(shape)};

	poll_run_as_owner("SELECT 1 FROM poll.shape WHERE feed OPERATOR(pg_catalog.=) $1"
					  " AND shape OPERATOR(pg_catalog.=) $2", 2, types, values, NULL);
	return SPI_processed > 0;
}

/* Not while a restore has yet to load it. */
static void
shape_update(int64 feed, const char *shape)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2] = {Int64GetDatum(feed), CStringGetTextDatum(shape)};

	poll_run_as_owner("UPDATE poll.shape SET shape = $2 WHERE feed OPERATOR(pg_catalog.=) $1",
					  2, types, values, NULL);
}

/* ---- barriers ---- */

/* A feed that this transaction tracks has no readers yet. */
static void
reset_feed(const PollFeed *feed)
{
	if (!TransactionIdIsCurrentTransactionId(feed->xmin))
		poll_capture_barrier(feed->id, POLL_OP_RESET, NULL, 0);
}

/* The feeds of a table and of what it is a partition of, as PollFeed *. */
static List *
feeds_of(Oid relid)
{
	List	   *relids = list_make1_oid(relid);
	List	   *feeds = NIL;
	ListCell   *lc;
	ListCell   *id;

	if (get_rel_relispartition(relid))
		relids = list_concat(relids, get_partition_ancestors(relid));
	foreach(lc, relids)
	{
		foreach(id, poll_catalog_feeds_of(lfirst_oid(lc)))
		{
			PollFeed   *feed = palloc(sizeof(PollFeed));

			if (poll_catalog_find_id(*(int64 *) lfirst(id), feed))
				feeds = lappend(feeds, feed);
		}
	}
	return feeds;
}

static void
reset_feeds(List *feeds)
{
	ListCell   *lc;

	foreach(lc, feeds)
		reset_feed(lfirst(lc));
}

static void
append_distance(StringInfo buf, uint64 distance)
{
	char		varint[POLL_VARINT_MAX];

	appendBinaryStringInfo(buf, varint, poll_varint_put(varint, distance) - varint);
}

/* The entry lists the transactions that were open when the table was locked. */
static void
truncate_feed(const PollFeed *feed)
{
	uint64		own = U64FromFullTransactionId(GetTopFullTransactionId());
	PollView	view;
	StringInfoData open;
	int			listed;

	initStringInfo(&open);
	poll_snapshot_view(GetLatestSnapshot(), &view);
	for (listed = 0; listed < view.nopen && view.open[listed] < own; listed++)
		append_distance(&open, own - view.open[listed]);
	/* from the snapshot's end on all are open, and not listed */
	for (uint64 xid = view.xmax; xid < own && xid - view.xmax <= MAX_OPEN_AT_TRUNCATE; xid++)
		append_distance(&open, own - xid);
	if (listed > MAX_OPEN_AT_TRUNCATE || own > view.xmax + MAX_OPEN_AT_TRUNCATE)
		reset_feed(feed);
	else
		poll_capture_barrier(feed->id, POLL_OP_TRUNCATE, open.data, open.len);
	poll_capture_set_empty(feed->id);
}

/* AFTER TRUNCATE FOR EACH STATEMENT; argument: the feed's id. */
Datum
poll_ext_capture_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	PollFeed	feed;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s.capture_truncate\" was not called as an AFTER TRUNCATE trigger", POLL_SCHEMA),
				 errhint("Use poll.track() to create the trigger.")));

	if (!poll_capture_feed(trigdata->tg_trigger, trigdata->tg_relation, &feed))
		return PointerGetDatum(NULL);
	if (feed.relid == RelationGetRelid(trigdata->tg_relation))
		truncate_feed(&feed);
	else if (!poll_capture_is_empty(feed.id))
		reset_feed(&feed);
	return PointerGetDatum(NULL);
}

/* ---- the triggers for that ---- */

/* Runs a command that the event triggers need not look at. */
static void
run_own(const char *sql)
{
	own_command = true;
	PG_TRY();
	{
		poll_run(sql, 0, NULL, NULL, NULL);
	}
	PG_FINALLY();
	{
		own_command = false;
	}
	PG_END_TRY();
}

static List *
table_and_partitions(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(relid, AccessShareLock, NULL) : list_make1_oid(relid);
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/* Foreign tables cannot be partitions of one with a key, and need no check. */
static void
check_logged(Oid relid)
{
	if (get_rel_persistence(relid) != RELPERSISTENCE_PERMANENT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is tracked and must stay logged", get_rel_name(relid)),
				 errdetail("A crash would empty it without a trace in the change log."),
				 errhint("Stop tracking with poll.untrack() first.")));
}

void
poll_truncate_triggers_create(Oid relid, int64 feed, bool always)
{
	char	   *name = psprintf(POLL_TRUNCATE_TRIGGER INT64_FORMAT, feed);
	ListCell   *lc;

	foreach(lc, table_and_partitions(relid))
	{
		char	   *table = qualified_name(lfirst_oid(lc));

		check_logged(lfirst_oid(lc));
		run_own(psprintf("CREATE OR REPLACE TRIGGER %s AFTER TRUNCATE ON %s FOR EACH STATEMENT"
						 " EXECUTE FUNCTION poll.capture_truncate('" INT64_FORMAT "')",
						 name, table, feed));
		if (always)
			run_own(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", table, name));
	}
}

void
poll_truncate_triggers_drop(Oid relid, int64 feed)
{
	char	   *name = psprintf(POLL_TRUNCATE_TRIGGER INT64_FORMAT, feed);
	ListCell   *lc;

	foreach(lc, table_and_partitions(relid))
		if (OidIsValid(get_trigger_oid(lfirst_oid(lc), name, true)))
		run_own(psprintf("DROP TRIGGER %s ON %s", name, qualified_name(lfirst_oid(lc))));
}

/* ---- the end of a command ---- */

static void
check_columns(const PollFeed *feed, List *names, const char *what)
{
	ListCell   *lc;

	foreach(lc, names)
		if (get_attnum(feed->relid, lfirst(lc)) == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("column \"%s\" of table \"%s\" is needed by feed \"%s\"",
						(char *) lfirst(lc), get_rel_name(feed->relid), NameStr(feed->name)),
				 errdetail("It is one of the feed's %s.", what),
				 errhint("SELECT poll.untrack('%s') first, and track the table again afterwards.",
						 NameStr(feed->name))));
}

/* Is the feed still possible, and does it still show the same? */
static void
check_feed(const PollFeed *feed)
{
	Relation	rel = table_open(feed->relid, AccessShareLock);
	List	   *columns;
	List	   *scope;
	char	   *shape = NULL;

	check_logged(feed->relid);
	poll_catalog_lists(feed->id, &columns, &scope);
	check_columns(feed, columns, "columns");
	check_columns(feed, scope, "scope columns");
	if (scope != NIL)
		(void) poll_key_of_columns(rel, scope);
	/* without a key nothing is written, and nothing read, until there is one */
	if (OidIsValid(poll_key_index(rel)))
		shape = poll_shape(rel, columns);
	table_close(rel, NoLock);
	if (shape == NULL || shape_is(feed->id, shape))
		return;
	shape_update(feed->id, shape);
	reset_feed(feed);
}

/* Partitions that have come must have their triggers. */
static void
check_partition(const PollFeed *feed, Oid relid)
{
	char	   *name = psprintf(POLL_TRUNCATE_TRIGGER INT64_FORMAT, feed->id);
	Oid			trigger = get_trigger_oid(feed->relid, name, true);

	if (OidIsValid(trigger))
		poll_truncate_triggers_create(relid, feed->id, feed->always);
}

static void
check_table(Oid relid)
{
	ListCell   *lc;

	foreach(lc, feeds_of(relid))
	{
		PollFeed   *feed = lfirst(lc);

		if (feed->relid == relid)
			check_feed(feed);
		else
			check_logged(relid);
	}
}

/*
 * A type was altered: its values may look different now.  Which tables have it
 * somewhere in a column's type is not looked for.
 */
static void
reset_own_types(void)
{
	ListCell   *lc;

	foreach(lc, poll_catalog_feeds_of(InvalidOid))
	{
		PollFeed	feed;
		Relation	rel = poll_catalog_find_id(*(int64 *) lfirst(lc), &feed) ?
		try_relation_open(feed.relid, AccessShareLock) : NULL;
		bool		own_types = false;

		if (rel == NULL)
			continue;
		for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
			own_types = own_types ||
				TupleDescAttr(RelationGetDescr(rel), i)->atttypid >= FirstNormalObjectId;
		relation_close(rel, AccessShareLock);
		if (own_types)
			reset_feed(&feed);
	}
}

/*
 * CREATE TABLE, perhaps as a partition.  Not at any other command: a restore
 * attaches its partitions before there are feeds, and then creates each
 * trigger itself, some of them after other commands on the partition.
 */
static void
check_new_table(Oid relid)
{
	ListCell   *lc;

	foreach(lc, feeds_of(relid))
		check_partition(lfirst(lc), relid);
}

static bool
is_empty(Oid relid)
{
	bool		empty = true;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ListCell   *lc;

	foreach(lc, table_and_partitions(relid))
	{
		Relation	rel = relation_open(lfirst_oid(lc), AccessShareLock);

		if (empty && rel->rd_rel->relkind == RELKIND_RELATION)
		{
			TupleTableSlot *slot = table_slot_create(rel, NULL);
			TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);

			empty = !table_scan_getnextslot(scan, ForwardScanDirection, slot);
			table_endscan(scan);
			ExecDropSingleTupleTableSlot(slot);
		}
		relation_close(rel, NoLock);
	}
	UnregisterSnapshot(snapshot);
	return empty;
}

/* A partition has come or gone, with rows or without. */
static void
check_attach(Oid parent, const AlterTableCmd *cmd)
{
	Oid			relid = RangeVarGetRelid(castNode(PartitionCmd, cmd->def)->name, NoLock, true);
	List	   *feeds = feeds_of(parent);
	ListCell   *lc;

	if (feeds == NIL || !OidIsValid(relid))
		return;
	foreach(lc, feeds)
	{
		PollFeed   *feed = lfirst(lc);

		if (cmd->subtype == AT_AttachPartition)
			check_partition(feed, relid);
		else
			poll_truncate_triggers_drop(relid, feed->id);
	}
	if (!is_empty(relid))
		reset_feeds(feeds);
}

static bool
is_our_trigger(const char *name)
{
	return strncmp(name, POLL_CAPTURE_TRIGGER, strlen(POLL_CAPTURE_TRIGGER)) == 0 ||
		strncmp(name, POLL_TRUNCATE_TRIGGER, strlen(POLL_TRUNCATE_TRIGGER)) == 0;
}

/* The feed's id in the name of one of our triggers. */
static int64
trigger_feed(const char *name)
{
	return strtoi64(strrchr(name, '_') + 1, NULL, 10);
}

/* The feed that one of our triggers belongs to starts again. */
static void
reset_feed_of_trigger(Oid relid, const char *name)
{
	ListCell   *lc;

	if (!is_our_trigger(name))
		return;
	foreach(lc, feeds_of(relid))
		if (((PollFeed *) lfirst(lc))->id == trigger_feed(name))
		reset_feed(lfirst(lc));
}

/*
 * ENABLE TRIGGER ALL makes triggers follow the replication role, also those
 * that did not.  pg_restore --disable-triggers ends with that.
 */
static void
enable_always(Oid relid)
{
	ListCell   *lc;

	foreach(lc, feeds_of(relid))
	{
		PollFeed   *feed = lfirst(lc);
		char	   *names[2] = {
			psprintf(POLL_CAPTURE_TRIGGER INT64_FORMAT, feed->id),
			psprintf(POLL_TRUNCATE_TRIGGER INT64_FORMAT, feed->id)
		};

		for (int i = 0; i < 2; i++)
			if (feed->always && OidIsValid(get_trigger_oid(relid, names[i], true)))
				run_own(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s",
								 qualified_name(relid), names[i]));
	}
}

static void
check_subcommand(Oid relid, const AlterTableCmd *cmd)
{
	switch (cmd->subtype)
	{
		case AT_AttachPartition:
		case AT_DetachPartition:
		case AT_DetachPartitionFinalize:
			check_attach(relid, cmd);
			break;
		case AT_EnableTrig:
		case AT_EnableAlwaysTrig:
		case AT_EnableReplicaTrig:
		case AT_DisableTrig:
			reset_feed_of_trigger(relid, cmd->name);
			break;
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
			enable_always(relid);
			/* FALLTHROUGH */
		case AT_DisableTrigAll:
		case AT_DisableTrigUser:
			reset_feeds(feeds_of(relid));
			break;
		default:
			break;
	}
}

static void
check_command(Oid relid, const CollectedCommand *command)
{
	ListCell   *lc;

	check_table(relid);
	if (get_rel_relkind(relid) == RELKIND_COMPOSITE_TYPE)
		reset_own_types();
	if (command->type == SCT_Simple && IsA(command->parsetree, CreateStmt))
		check_new_table(relid);
	if (command->type != SCT_AlterTable)
		return;
	foreach(lc, command->d.alterTable.subcmds)
	{
		Node	   *node = ((CollectedATSubcmd *) lfirst(lc))->parsetree;

		if (IsA(node, AlterTableCmd))
			check_subcommand(relid, (AlterTableCmd *) node);
	}
}

/* A trigger that track() did not create: a restored database's. */
static void
check_new_trigger(Oid tgoid)
{
	Relation	pg_trigger = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(tgoid));
	scan = systable_beginscan(pg_trigger, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		reset_feed_of_trigger(form->tgrelid, NameStr(form->tgname));
	}
	systable_endscan(scan);
	table_close(pg_trigger, AccessShareLock);
}

static bool
is_enum_rename(const CollectedCommand *command)
{
	return command->type == SCT_Simple && IsA(command->parsetree, AlterEnumStmt) &&
		((AlterEnumStmt *) command->parsetree)->oldVal != NULL;
}

static void
check_called(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called as an event trigger",
						get_func_name(fcinfo->flinfo->fn_oid))));
}

static Datum
column(int row, int n)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, n, &isnull);

	return isnull ? (Datum) 0 : value;
}

/*
 * ddl_command_start: DETACH CONCURRENTLY takes the rows away with the first of
 * its transactions, which ends within the command.
 */
Datum
poll_ext_ddl_start(PG_FUNCTION_ARGS)
{
	EventTriggerData *trigdata = (EventTriggerData *) fcinfo->context;
	AlterTableStmt *stmt;
	ListCell   *lc;

	check_called(fcinfo);
	if (!IsA(trigdata->parsetree, AlterTableStmt))
		PG_RETURN_NULL();
	stmt = (AlterTableStmt *) trigdata->parsetree;
	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst(lc);

		if (cmd->subtype == AT_DetachPartition && castNode(PartitionCmd, cmd->def)->concurrent)
		{
			Oid			relid = RangeVarGetRelid(stmt->relation, NoLock, true);

			if (OidIsValid(relid))
				reset_feeds(feeds_of(relid));
		}
	}
	PG_RETURN_NULL();
}

/* ddl_command_end */
Datum
poll_ext_ddl_end(PG_FUNCTION_ARGS)
{
	int			n;
	Oid		   *classes;
	Oid		   *objects;
	CollectedCommand **commands;

	check_called(fcinfo);
	if (own_command)
		PG_RETURN_NULL();
	SPI_connect();
	poll_run("SELECT classid, objid, command FROM pg_catalog.pg_event_trigger_ddl_commands()",
			 0, NULL, NULL, NULL);
	n = (int) SPI_processed;
	classes = palloc(sizeof(Oid) * Max(n, 1));
	objects = palloc(sizeof(Oid) * Max(n, 1));
	commands = palloc(sizeof(CollectedCommand *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		classes[i] = DatumGetObjectId(column(i, 1));
		objects[i] = DatumGetObjectId(column(i, 2));
		commands[i] = (CollectedCommand *) DatumGetPointer(column(i, 3));
	}
	for (int i = 0; i < n; i++)
	{
		if (classes[i] == RelationRelationId)
			check_command(objects[i], commands[i]);
		else if (classes[i] == TriggerRelationId)
			check_new_trigger(objects[i]);
		else if (classes[i] == TypeRelationId && is_enum_rename(commands[i]))
			reset_own_types();
	}
	SPI_finish();
	PG_RETURN_NULL();
}

/* ---- the end of a command that drops ---- */

/*
 * One of our triggers is gone: with a partition, or by itself?  Then the feed
 * goes, too.  It is not refused, since pg_restore --clean drops triggers first.
 */
static void
check_dropped_trigger(const char *nspname, const char *relname, const char *name)
{
	Oid			relid = get_relname_relid(relname, get_namespace_oid(nspname, true));
	PollFeed	feed;

	if (!poll_catalog_find_id(trigger_feed(name), &feed))
		return;
	if (!OidIsValid(relid))
		reset_feed(&feed);
	else if (relid == feed.relid ||
			 (get_rel_relispartition(relid) &&
			  list_member_oid(get_partition_ancestors(relid), feed.relid)))
	{
		poll_forget_feed(feed.id);
		ereport(NOTICE,
				(errmsg("table \"%s\" is not tracked as feed \"%s\" any more",
						get_rel_name(feed.relid), NameStr(feed.name)),
				 errdetail("Its trigger on table \"%s\" was dropped.", relname)));
	}
}

/* sql_drop */
Datum
poll_ext_ddl_drop(PG_FUNCTION_ARGS)
{
	List	   *tables = NIL;
	List	   *altered = NIL;
	List	   *triggers = NIL; /* schema, table and trigger, again and again */
	ListCell   *lc;

	check_called(fcinfo);
	if (own_command)
		PG_RETURN_NULL();
	SPI_connect();
	poll_run("SELECT classid, objid, objsubid, address_names[1], address_names[2], address_names[3]"
			 " FROM pg_catalog.pg_event_trigger_dropped_objects()", 0, NULL, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Oid			class = DatumGetObjectId(column(i, 1));
		Oid			object = DatumGetObjectId(column(i, 2));
		char	   *names[3];

		for (int j = 0; j < 3; j++)
			names[j] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 4 + j);

		if (class == RelationRelationId && DatumGetInt32(column(i, 3)) == 0)
			tables = lappend_oid(tables, object);
		else if (class == RelationRelationId)
			altered = lappend_oid(altered, object);
		else if (class == TriggerRelationId && names[2] != NULL && is_our_trigger(names[2]))
			triggers = list_concat(triggers, list_make3(names[0], names[1], names[2]));
	}

	/* feeds go with their tables */
	foreach(lc, tables)
	{
		ListCell   *id;

		foreach(id, poll_catalog_feeds_of(lfirst_oid(lc)))
			poll_forget_feed(*(int64 *) lfirst(id));
	}
	foreach(lc, altered)
		if (!list_member_oid(tables, lfirst_oid(lc)))
		check_table(lfirst_oid(lc));
	for (int i = 0; i < list_length(triggers); i += 3)
		check_dropped_trigger(list_nth(triggers, i), list_nth(triggers, i + 1),
							  list_nth(triggers, i + 2));
	SPI_finish();
	PG_RETURN_NULL();
}

/* table_rewrite: are the values of a column computed anew? */
Datum
poll_ext_ddl_rewrite(PG_FUNCTION_ARGS)
{
	check_called(fcinfo);
	if (DatumGetInt32(OidFunctionCall0(F_PG_EVENT_TRIGGER_TABLE_REWRITE_REASON)) & AT_REWRITE_COLUMN_REWRITE)
	{
		List	   *feeds = feeds_of(DatumGetObjectId(OidFunctionCall0(F_PG_EVENT_TRIGGER_TABLE_REWRITE_OID)));

		reset_feeds(feeds);
	}
	PG_RETURN_NULL();
}
