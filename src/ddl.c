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
 * Drops.  When sql_drop comes, nothing tells any more what a dropped table was a
 * partition of, and names may be anybody's; so a hook notes it before.
 *
 * Types.  A value of an enum that gets another name, or an attribute of a
 * composite, changes rows that nobody writes.  The tables that have the type
 * somewhere in a column's are locked first, so that those who have written the
 * old name are done.
 *
 * Event triggers run as whoever runs the command; the registry's tables are
 * written as their owner, and a partition's triggers as its owner.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
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
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "capture.h"
#include "catalog.h"
#include "ddl.h"
#include "key.h"
#include "shape.h"
#include "snapshot.h"
#include "track.h"
#include "varint.h"

/* more open transactions than this: no list, but a reset */
#define MAX_OPEN_AT_TRUNCATE	256

/* Is it we who run a command now? */
static bool own_command = false;

/* The feeds that this command takes partitions from, PollFeed *. */
static List *losing_feeds = NIL;

static object_access_hook_type prev_object_access_hook = NULL;

PG_FUNCTION_INFO_V1(poll_ext_capture_truncate);
PG_FUNCTION_INFO_V1(poll_ext_ddl_start);
PG_FUNCTION_INFO_V1(poll_ext_ddl_end);
PG_FUNCTION_INFO_V1(poll_ext_ddl_drop);
PG_FUNCTION_INFO_V1(poll_ext_ddl_rewrite);

/* Of the result of poll_run(). */
static Datum
column(int row, int n)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, n, &isnull);

	return isnull ? (Datum) 0 : value;
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

/* Each once: there may be very many partitions. */
static List *
add_feed(List *feeds, PollFeed *feed)
{
	ListCell   *lc;

	foreach(lc, feeds)
	{
		if (((PollFeed *) lfirst(lc))->id == feed->id)
			return feeds;
	}
	return lappend(feeds, feed);
}

static void
reset_feeds(List *feeds)
{
	ListCell   *lc;

	foreach(lc, feeds)
		reset_feed(lfirst(lc));
}

static List *
table_and_partitions(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(relid, AccessShareLock, NULL) : list_make1_oid(relid);
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

static void
append_distance(StringInfo buf, uint64 distance)
{
	char		varint[POLL_VARINT_MAX];

	appendBinaryStringInfo(buf, varint, poll_varint_put(varint, distance) - varint);
}

/*
 * The entry lists the transactions that were open when the table was locked.
 * If there are rows, they come from a trigger that has fired before ours, and
 * are logged already.
 */
static void
truncate_feed(const PollFeed *feed)
{
	uint64		own = U64FromFullTransactionId(GetTopFullTransactionId());
	PollView	view;
	StringInfoData open;
	int			listed;

	if (!is_empty(feed->relid))
	{
		reset_feed(feed);
		return;
	}
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

/*
 * Runs a command that is about a trigger of that table, and that the event
 * triggers need not look at.  As the table's owner: a partition may be another
 * role's, as the server clones row triggers to those, too.
 */
static void
run_own(Oid relid, const char *sql)
{
	Oid			userid;
	int			context;

	GetUserIdAndSecContext(&userid, &context);
	own_command = true;
	PG_TRY();
	{
		SetUserIdAndSecContext(poll_catalog_owner(relid), context | SECURITY_LOCAL_USERID_CHANGE);
		poll_run(sql, 0, NULL, NULL, NULL);
	}
	PG_FINALLY();
	{
		own_command = false;
		SetUserIdAndSecContext(userid, context);
	}
	PG_END_TRY();
}

/*
 * A table, or a partition of root.  Foreign tables cannot be partitions of one
 * with a key, and need no check.
 */
static void
check_logged(Oid relid, Oid root)
{
	if (get_rel_persistence(relid) == RELPERSISTENCE_PERMANENT)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 relid == root ?
			 errmsg("table \"%s\" is tracked and must be logged", get_rel_name(relid)) :
			 errmsg("table \"%s\" is a partition of one that is tracked and must be logged",
					get_rel_name(relid)),
			 errdetail("A crash would empty it without a trace in the change log."),
			 errhint("Create it without UNLOGGED, or stop tracking with poll.untrack().")));
}

void
poll_truncate_triggers_create(Oid relid, int64 feed, bool always)
{
	char	   *name = psprintf(POLL_TRUNCATE_TRIGGER INT64_FORMAT, feed);
	ListCell   *lc;

	foreach(lc, table_and_partitions(relid))
	{
		Oid			part = lfirst_oid(lc);
		char	   *table = poll_catalog_table_name(part);

		check_logged(part, relid);
		run_own(part, psprintf("CREATE OR REPLACE TRIGGER %s AFTER TRUNCATE ON %s FOR EACH STATEMENT"
							   " EXECUTE FUNCTION poll.capture_truncate('" INT64_FORMAT "')",
							   name, table, feed));
		if (always)
			run_own(part, psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", table, name));
	}
}

void
poll_truncate_triggers_drop(Oid relid, int64 feed)
{
	char	   *name = psprintf(POLL_TRUNCATE_TRIGGER INT64_FORMAT, feed);
	ListCell   *lc;

	foreach(lc, table_and_partitions(relid))
	{
		Oid			part = lfirst_oid(lc);

		if (OidIsValid(get_trigger_oid(part, name, true)))
			run_own(part, psprintf("DROP TRIGGER %s ON %s", name, poll_catalog_table_name(part)));
	}
}

/* ---- the end of a command ---- */

static void
check_columns(const PollFeed *feed, List *names, const char *what)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		if (get_attnum(feed->relid, lfirst(lc)) != InvalidAttrNumber)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("column \"%s\" of table \"%s\" is needed by feed \"%s\"",
						(char *) lfirst(lc), get_rel_name(feed->relid), NameStr(feed->name)),
				 errdetail("It is one of the feed's %s.", what),
				 errhint("SELECT poll.untrack('%s') first, and track the table again afterwards.",
						 NameStr(feed->name))));
	}
}

/* Is the feed still possible, and does it still show the same? */
static void
check_feed(const PollFeed *feed)
{
	Relation	rel = table_open(feed->relid, AccessShareLock);
	List	   *columns;
	List	   *scope;
	char	   *shape = NULL;

	check_logged(feed->relid, feed->relid);
	poll_catalog_lists(feed->id, &columns, &scope);
	check_columns(feed, columns, "columns");
	check_columns(feed, scope, "scope columns");
	if (scope != NIL)
		(void) poll_key_of_columns(rel, scope);
	/* without a key nothing is written, and nothing read, until there is one */
	if (OidIsValid(poll_key_index(rel)))
		shape = poll_shape(rel, columns, scope);
	table_close(rel, NoLock);
	if (shape != NULL && poll_shape_changed(feed->id, shape))
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
			check_logged(relid, feed->relid);
	}
}

/*
 * The values of a type look different now: of an enum or a composite, or of the
 * rows of a table.  Feeds of tables with a column of it, or of an array, a
 * domain, a range or a composite of it, start again.
 */
static void
reset_feeds_with_type(Oid type)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(type)};
	List	   *relids = NIL;
	List	   *feeds = NIL;
	ListCell   *lc;

	if (!OidIsValid(type) || poll_catalog_feeds_of(InvalidOid) == NIL)
		return;
	poll_run("WITH RECURSIVE t(oid) AS ("
			 " SELECT $1 UNION"
			 " SELECT coalesce(c.reltype, d.objid)"
			 " FROM t JOIN pg_catalog.pg_depend d ON d.refobjid OPERATOR(pg_catalog.=) t.oid"
			 " AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass"
			 " LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.objid"
			 " AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass"
			 " WHERE c.oid IS NOT NULL"
			 " OR d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass)"
			 " SELECT c.oid FROM t JOIN pg_catalog.pg_class c ON c.reltype OPERATOR(pg_catalog.=) t.oid"
			 " WHERE t.oid OPERATOR(pg_catalog.<>) $1", 1, types, values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
		relids = lappend_oid(relids, DatumGetObjectId(column(i, 1)));
	foreach(lc, relids)
	{
		List	   *of_table = feeds_of(lfirst_oid(lc));
		ListCell   *feed;

		if (of_table != NIL)
			LockRelationOid(lfirst_oid(lc), ShareRowExclusiveLock);
		foreach(feed, of_table)
			feeds = add_feed(feeds, lfirst(feed));
	}
	reset_feeds(feeds);
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

/* The feed that a trigger of the table belongs to, or NULL. */
static PollFeed *
feed_of_trigger(Oid relid, const char *name)
{
	ListCell   *lc;

	if (!is_our_trigger(name))
		return NULL;
	foreach(lc, feeds_of(relid))
	{
		PollFeed   *feed = lfirst(lc);

		if (feed->id == trigger_feed(name))
			return feed;
	}
	return NULL;
}

/* It starts again. */
static void
reset_feed_of_trigger(Oid relid, const char *name)
{
	PollFeed   *feed = feed_of_trigger(relid, name);

	if (feed != NULL)
		reset_feed(feed);
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
				run_own(relid, psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s",
										poll_catalog_table_name(relid), names[i]));
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
	if (command->type == SCT_Simple && IsA(command->parsetree, CreateStmt))
		check_new_table(relid);
	else
		reset_feeds_with_type(get_rel_type_id(relid));
	if (command->type != SCT_AlterTable)
		return;
	foreach(lc, command->d.alterTable.subcmds)
	{
		Node	   *node = ((CollectedATSubcmd *) lfirst(lc))->parsetree;

		if (IsA(node, AlterTableCmd))
			check_subcommand(relid, (AlterTableCmd *) node);
	}
}

/* Is it one that captures everything? */
static bool
is_whole_trigger(Relation pg_trigger, HeapTuple tuple)
{
	Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
	bool		truncates = strncmp(NameStr(form->tgname), POLL_TRUNCATE_TRIGGER,
									strlen(POLL_TRUNCATE_TRIGGER)) == 0;
	char	   *function = get_func_name(form->tgfoid);

	return function != NULL &&
		strcmp(function, truncates ? "capture_truncate" : "capture") == 0 &&
		get_func_namespace(form->tgfoid) == get_namespace_oid(POLL_SCHEMA, true) &&
		form->tgtype == (truncates ? TRIGGER_TYPE_TRUNCATE :
						 TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE) &&
		form->tgattr.dim1 == 0 &&
		heap_attisnull(tuple, Anum_pg_trigger_tgqual, RelationGetDescr(pg_trigger));
}

/*
 * A trigger that track() did not create: a restored database's, or one that
 * replaces ours, or ours under another name.
 */
static void
check_trigger(Oid tgoid, const CollectedCommand *command)
{
	Relation	pg_trigger = table_open(TriggerRelationId, AccessShareLock);
	const char *old_name = command->type == SCT_Simple && IsA(command->parsetree, RenameStmt) ?
	((RenameStmt *) command->parsetree)->subname : NULL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(tgoid));
	scan = systable_beginscan(pg_trigger, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);
		PollFeed   *feed = feed_of_trigger(form->tgrelid, old_name ? old_name : NameStr(form->tgname));

		if (feed != NULL && (old_name != NULL || !is_whole_trigger(pg_trigger, tuple)))
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("feed \"%s\" needs its triggers on table \"%s\" as they are",
							NameStr(feed->name), get_rel_name(form->tgrelid)),
					 errhint("SELECT poll.untrack('%s').", NameStr(feed->name))));
		if (feed != NULL)
			reset_feed(feed);
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

/*
 * ddl_command_start: DETACH CONCURRENTLY takes the rows away with the first of
 * its transactions, which ends within the command.  For all other commands it
 * sees to it that the library, and with it our hook, is loaded.
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
			check_trigger(objects[i], commands[i]);
		else if (classes[i] == TypeRelationId && is_enum_rename(commands[i]))
			reset_feeds_with_type(objects[i]);
	}
	SPI_finish();
	PG_RETURN_NULL();
}

/* ---- the end of a command that drops ---- */

/* A table is about to be dropped: notes the feeds that it is a partition of. */
static void
object_access(ObjectAccessType access, Oid classid, Oid relid, int subid, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, classid, relid, subid, arg);
	if (access == OAT_DROP && classid == RelationRelationId && subid == 0 &&
		get_rel_relispartition(relid) && poll_catalog_exists())
	{
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
		ListCell   *lc;

		foreach(lc, feeds_of(relid))
			losing_feeds = add_feed(losing_feeds, lfirst(lc));
		MemoryContextSwitchTo(old);
	}
}

static void
forget_losing_feeds(XactEvent event, void *arg)
{
	losing_feeds = NIL;
}

void
poll_ddl_install(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = object_access;
	RegisterXactCallback(forget_losing_feeds, NULL);
}

/*
 * One of our triggers is gone, and not with its table.  Then the feed goes, too;
 * that is not refused, since pg_restore --clean drops triggers first.  But a
 * partition, which may be another role's, gets it again.
 */
static void
check_dropped_trigger(const char *nspname, const char *relname, const char *name)
{
	Oid			relid = get_relname_relid(relname, get_namespace_oid(nspname, true));
	PollFeed   *feed = OidIsValid(relid) ? feed_of_trigger(relid, name) : NULL;

	if (feed == NULL)
		return;
	if (feed->relid != relid)
		check_partition(feed, relid);
	else
	{
		poll_forget_feed(feed->id);
		ereport(NOTICE,
				(errmsg("table \"%s\" is not tracked as feed \"%s\" any more",
						relname, NameStr(feed->name)),
				 errdetail("Its trigger was dropped.")));
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

	reset_feeds(losing_feeds);
	losing_feeds = NIL;

	/* feeds go with their tables */
	foreach(lc, tables)
	{
		ListCell   *id;

		foreach(id, poll_catalog_feeds_of(lfirst_oid(lc)))
			poll_forget_feed(*(int64 *) lfirst(id));
	}
	foreach(lc, altered)
	{
		if (!list_member_oid(tables, lfirst_oid(lc)))
			check_table(lfirst_oid(lc));
	}
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
