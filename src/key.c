/*
 * key.c
 *		The key of a tracked table, and its text form in the log.
 *
 * The key is the table's primary key or its replica identity index, looked up
 * live and stored nowhere.  The log stores keys as the text output of their
 * columns, so that a change of a column's type cannot make old entries
 * unreadable: for each column a varint length and that many bytes.
 *
 * The text must not depend on the session that happens to write it, so it is
 * made, and read again, under fixed settings.  Changing settings for each row
 * is slow; a type says which settings its text depends on, and only those
 * that differ from the fixed value are changed.  All fixed values but the
 * time zone are the server's defaults.
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "compat.h"
#include "key.h"
#include "varint.h"

/* The settings that text forms depend on; bits of PollKeyColumn.settings. */
#define SETTING_DATESTYLE			0x01
#define SETTING_TIMEZONE			0x02
#define SETTING_INTERVALSTYLE		0x04
#define SETTING_FLOAT_DIGITS		0x08
#define SETTING_BYTEA				0x10
#define SETTING_MONEY				0x20
#define SETTING_ALL					0x3f

/* lc_monetary.  Its header, utils/pg_locale.h, needs the headers of ICU. */
extern PGDLLIMPORT char *locale_monetary;

static int
type_settings(Oid type)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case CHAROID:
		case BOOLOID:
		case UUIDOID:
		case NUMERICOID:
		case INETOID:
		case CIDROID:
		case TIMEOID:
		case TIMETZOID:
			return 0;
		case DATEOID:
		case TIMESTAMPOID:
			return SETTING_DATESTYLE;
		case TIMESTAMPTZOID:
			return SETTING_DATESTYLE | SETTING_TIMEZONE;
		case INTERVALOID:
			return SETTING_INTERVALSTYLE;
		case FLOAT4OID:
		case FLOAT8OID:
			return SETTING_FLOAT_DIGITS;
		case BYTEAOID:
			return SETTING_BYTEA;
		default:
			return type_is_enum(type) ? 0 : SETTING_ALL;
	}
}

static inline bool
type_is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

static inline bool
type_is_text(Oid type)
{
	return type == TEXTOID || type == VARCHAROID;
}

/* Which of the wanted settings are not at their fixed value now? */
static int
settings_to_change(int wanted)
{
	int			change = 0;

	if ((wanted & SETTING_DATESTYLE) && DateStyle != USE_ISO_DATES)
		change |= SETTING_DATESTYLE;
	if ((wanted & SETTING_TIMEZONE) &&
		strcmp(pg_get_timezone_name(session_timezone), "UTC") != 0)
		change |= SETTING_TIMEZONE;
	if ((wanted & SETTING_INTERVALSTYLE) && IntervalStyle != INTSTYLE_POSTGRES)
		change |= SETTING_INTERVALSTYLE;
	if ((wanted & SETTING_FLOAT_DIGITS) && extra_float_digits <= 0)
		change |= SETTING_FLOAT_DIGITS;
	if ((wanted & SETTING_BYTEA) && bytea_output != BYTEA_OUTPUT_HEX)
		change |= SETTING_BYTEA;
	if ((wanted & SETTING_MONEY) && strcmp(locale_monetary, "C") != 0)
		change |= SETTING_MONEY;
	return change;
}

/* Fixes the settings; returns what settings_restore() needs, 0 if nothing. */
static int
settings_fix(int wanted)
{
	static const struct
	{
		int			bit;
		const char *name;
		const char *value;
	}			fixed[] = {
		{SETTING_DATESTYLE, "datestyle", "ISO"},
		{SETTING_TIMEZONE, "timezone", "UTC"},
		{SETTING_INTERVALSTYLE, "intervalstyle", "postgres"},
		{SETTING_FLOAT_DIGITS, "extra_float_digits", "1"},
		{SETTING_BYTEA, "bytea_output", "hex"},
		{SETTING_MONEY, "lc_monetary", "C"}
	};
	int			change = settings_to_change(wanted);
	int			nestlevel;

	if (change == 0)
		return 0;
	nestlevel = NewGUCNestLevel();
	for (int i = 0; i < lengthof(fixed); i++)
		if (change & fixed[i].bit)
			(void) set_config_option(fixed[i].name, fixed[i].value,
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	return nestlevel;
}

static void
settings_restore(int nestlevel)
{
	if (nestlevel != 0)
		AtEOXact_GUC(true, nestlevel);
}

Oid
poll_key_index(Relation rel)
{
	Oid			pkey = poll_compat_primary_key(rel);

	return OidIsValid(pkey) ? pkey : RelationGetReplicaIndex(rel);
}

/* What a column is, but for the operators. */
static void
column_init(PollKeyColumn *column, Relation rel, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	Oid			function;
	bool		varlena;

	column->attnum = attnum;
	column->typmod = att->atttypmod;
	column->type = getBaseTypeAndTypmod(att->atttypid, &column->typmod);
	column->is_domain = column->type != att->atttypid;
	get_typlenbyvalalign(column->type, &column->typlen, &column->typbyval, &column->typalign);
	column->settings = type_settings(column->type);
	column->checked_input = !type_is_integer(column->type) && !type_is_text(column->type);

	getTypeOutputInfo(column->type, &function, &varlena);
	fmgr_info_cxt(function, &column->output, CurrentMemoryContext);
	getTypeInputInfo(column->type, &function, &column->ioparam);
	fmgr_info_cxt(function, &column->input, CurrentMemoryContext);
}

/* One column of the key from one column of its index. */
static void
key_column_build(PollKeyColumn *column, Relation rel, Relation index, int i)
{
	AttrNumber	attnum = index->rd_index->indkey.values[i];
	Oid			opfamily = index->rd_opfamily[i];
	Oid			opcintype = index->rd_opcintype[i];
	Oid			operators[BTMaxStrategyNumber + 1];

	column_init(column, rel, attnum);
	if (index->rd_indcollation[i] != TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attcollation)
		column->collation = index->rd_indcollation[i];

	for (int strategy = 1; strategy <= BTMaxStrategyNumber; strategy++)
	{
		operators[strategy] = get_opfamily_member(opfamily, opcintype, opcintype, strategy);
		if (!OidIsValid(operators[strategy]))
			elog(ERROR, "missing operator %d in operator family %u", strategy, opfamily);
	}
	column->descending = (index->rd_indoption[i] & INDOPTION_DESC) != 0;
	column->eq_operator = operators[BTEqualStrategyNumber];
	column->sort_operator = operators[column->descending ? BTGreaterStrategyNumber : BTLessStrategyNumber];
	column->after_operator = operators[column->descending ? BTLessStrategyNumber : BTGreaterStrategyNumber];
	column->from_operator = operators[column->descending ? BTLessEqualStrategyNumber : BTGreaterEqualStrategyNumber];
}

/*
 * The index is not locked: nobody drops it, or gives it other columns, before
 * our lock of the table is released.  Some commands lock an index before its
 * table (ALTER INDEX ATTACH PARTITION does so with those of the levels above),
 * and would end in a deadlock with us; pg_restore -j runs them beside the
 * CREATE TRIGGER that our event trigger looks at.
 */
PollKey *
poll_key_build(Relation rel)
{
	Oid			indexid = poll_key_index(rel);
	Relation	index;
	PollKey    *key;
	int			n;

	if (!OidIsValid(indexid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tracked table \"%s\" has no key any more", RelationGetRelationName(rel)),
				 errhint("Add a primary key or set a replica identity index, or stop tracking with poll.untrack().")));
	index = RelationIdGetRelation(indexid);
	if (!RelationIsValid(index))
		elog(ERROR, "could not open index with OID %u", indexid);
	n = IndexRelationGetNumberOfKeyAttributes(index);
	key = palloc0(offsetof(PollKey, columns) + n * sizeof(PollKeyColumn));
	key->ncolumns = n;
	for (int i = 0; i < n; i++)
		key_column_build(&key->columns[i], rel, index, i);
	RelationClose(index);
	return key;
}

AttrNumber
poll_key_attnum(Relation rel, const char *name)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);

	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist", name,
						RelationGetRelationName(rel))));
	return attnum;
}

void
poll_key_map(PollKey *key, Relation from, Relation to)
{
	if (RelationGetRelid(from) == RelationGetRelid(to))
		return;
	for (int i = 0; i < key->ncolumns; i++)
	{
		AttrNumber	attnum = key->columns[i].attnum;

		key->columns[i].attnum =
			poll_key_attnum(to, NameStr(TupleDescAttr(RelationGetDescr(from), attnum - 1)->attname));
	}
}

PollKey *
poll_key_of_columns(Relation rel, List *names)
{
	PollKey    *key = palloc0(offsetof(PollKey, columns) + list_length(names) * sizeof(PollKeyColumn));

	ListCell   *lc;

	foreach(lc, names)
	{
		PollKeyColumn *column = &key->columns[key->ncolumns++];

		column_init(column, rel, poll_key_attnum(rel, lfirst(lc)));
		column->eq_operator = lookup_type_cache(column->type, TYPECACHE_EQ_OPR)->eq_opr;
		if (!OidIsValid(column->eq_operator))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("column \"%s\" cannot be part of a scope", (char *) lfirst(lc)),
					 errdetail("Its type %s has no operator =.", format_type_be(column->type))));
	}
	return key;
}

void
poll_key_append_text(StringInfo buf, const char *data, int len)
{
	char		varint[POLL_VARINT_MAX];

	appendBinaryStringInfo(buf, varint, poll_varint_put(varint, len) - varint);
	appendBinaryStringInfo(buf, data, len);
}

void
poll_key_append_value(StringInfo buf, PollKeyColumn *column, Datum value)
{
	char		number[MAXINT8LEN + 1];
	char	   *str;
	int			nestlevel;

	switch (column->type)
	{
		case INT2OID:
			poll_key_append_text(buf, number, pg_itoa(DatumGetInt16(value), number));
			break;
		case INT4OID:
			poll_key_append_text(buf, number, pg_ltoa(DatumGetInt32(value), number));
			break;
		case INT8OID:
			poll_key_append_text(buf, number, pg_lltoa(DatumGetInt64(value), number));
			break;
		case TEXTOID:
		case VARCHAROID:
			{
				struct varlena *txt = PG_DETOAST_DATUM_PACKED(value);

				poll_key_append_text(buf, VARDATA_ANY(txt), VARSIZE_ANY_EXHDR(txt));
				break;
			}
		default:
			nestlevel = settings_fix(column->settings);
			str = OutputFunctionCall(&column->output, value);
			settings_restore(nestlevel);
			poll_key_append_text(buf, str, strlen(str));
			pfree(str);
	}
}

void
poll_key_append(StringInfo buf, PollKey *key, TupleTableSlot *slot)
{
	for (int i = 0; i < key->ncolumns; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, key->columns[i].attnum, &isnull);

		if (isnull)
			elog(ERROR, "null value in column %d of a key", key->columns[i].attnum);
		poll_key_append_value(buf, &key->columns[i], value);
	}
}

void
poll_scope_append_value(StringInfo buf, PollKeyColumn *column, Datum value, bool isnull)
{
	appendStringInfoChar(buf, isnull ? '\0' : '\1');
	if (!isnull)
		poll_key_append_value(buf, column, value);
}

void
poll_scope_append(StringInfo buf, PollKey *scope, TupleTableSlot *slot)
{
	for (int i = 0; i < scope->ncolumns; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, scope->columns[i].attnum, &isnull);

		poll_scope_append_value(buf, &scope->columns[i], value, isnull);
	}
}

/*
 * Feed ids are positive, these are negative.  Scopes come from clients: if one
 * could be made that has the channel of another feed's, it would show that
 * feed's keys.  So this is SHA-256, with a secret so that nobody can search for
 * one that hits any of very many channels.
 */
int64
poll_scope_channel(int64 feed, const char *scope, int len)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint64		channel;

	if (ctx == NULL ||
		pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, poll_catalog_secret()->data, UUID_LEN) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) &feed, sizeof(feed)) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) scope, len) < 0 ||
		pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute the channel of a scope");
	pg_cryptohash_free(ctx);
	memcpy(&channel, digest, sizeof(channel));
	return (int64) (channel | UINT64CONST(1) << 63);
}

int
poll_key_split(const char *data, int len, char **texts, int max)
{
	const char *end = data + len;
	int			n = 0;

	while (data < end)
	{
		uint64		size;

		/* it may come from a client, within a cursor */
		if (n == max || !poll_varint_get(&data, end, &size) || size > (uint64) (end - data) ||
			!pg_verifymbstr(data, (int) size, true))
			return -1;
		texts[n++] = pnstrdup(data, size);
		data += size;
	}
	return n;
}

/* What the input functions of the integer types would accept; no errors. */
static bool
parse_integer(Oid type, const char *str, Datum *value)
{
	char	   *end;
	int64		number;

	errno = 0;
	number = strtoi64(str, &end, 10);
	if (errno != 0 || end == str || *end != '\0')
		return false;
	if (type == INT2OID)
	{
		*value = Int16GetDatum((int16) number);
		return number >= PG_INT16_MIN && number <= PG_INT16_MAX;
	}
	if (type == INT4OID)
	{
		*value = Int32GetDatum((int32) number);
		return number >= PG_INT32_MIN && number <= PG_INT32_MAX;
	}
	*value = Int64GetDatum(number);
	return true;
}

/* One text to a value; false if it is none.  The input function may throw. */
static bool
parse_text(PollKeyColumn *column, char *str, Datum *value)
{
	if (type_is_integer(column->type))
		return parse_integer(column->type, str, value);
	*value = type_is_text(column->type) ? CStringGetTextDatum(str) :
		InputFunctionCall(&column->input, str, column->ioparam, column->typmod);
	return true;
}

const char *
poll_key_parse_value(PollKeyColumn *column, const char *data, const char *end, Datum *value)
{
	uint64		size;
	int			nestlevel = settings_fix(column->settings);

	if (!poll_varint_get(&data, end, &size) || size > (uint64) (end - data) ||
		!parse_text(column, pnstrdup(data, size), value))
		elog(ERROR, "invalid value of a scope");
	settings_restore(nestlevel);
	return data + size;
}

/* One stored key to values. */
static bool
parse_one(PollKey *key, const char *data, int len, Datum *values)
{
	char	   *texts[INDEX_MAX_KEYS];

	if (poll_key_split(data, len, texts, key->ncolumns) != key->ncolumns)
		return false;
	for (int i = 0; i < key->ncolumns; i++)
		if (!parse_text(&key->columns[i], texts[i], &values[i]))
			return false;
	return true;
}

/* Does the error say that a text is no value of the type? */
static bool
says_no_value(const ErrorData *error, bool untrusted)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:	/* of a domain */
		case ERRCODE_FEATURE_NOT_SUPPORTED:
			return true;
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			/* the stack's depth says more of the caller than of the value */
			return untrusted || error->sqlerrcode != ERRCODE_STATEMENT_TOO_COMPLEX;
		default:
			return false;
	}
}

/*
 * Parses keys first..last-1 in a subtransaction; returns false if one of them
 * is no value of the type.
 */
static bool
parse_guarded(PollKey *key, const char *const *keys, const int *lengths, int first, int last,
			  bool untrusted, Datum *values, bool *valid)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool ok = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		for (int i = first; i < last; i++)
			valid[i] = parse_one(key, keys[i], lengths[i], &values[i * key->ncolumns]);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;

		if (!says_no_value(error, untrusted))
			ReThrowError(error);
		FreeErrorData(error);
		ok = false;
	}
	PG_END_TRY();
	return ok;
}

void
poll_key_parse(PollKey *key, const char *const *keys, const int *lengths, int nkeys,
			   bool untrusted, Datum *values, bool *valid)
{
	bool		checked = false;
	int			settings = 0;
	int			nestlevel;

	for (int i = 0; i < key->ncolumns; i++)
	{
		checked |= key->columns[i].checked_input;
		settings |= key->columns[i].settings;
	}

	nestlevel = settings_fix(settings);
	if (!checked)
	{
		for (int i = 0; i < nkeys; i++)
			valid[i] = parse_one(key, keys[i], lengths[i], &values[i * key->ncolumns]);
	}
	else if (!parse_guarded(key, keys, lengths, 0, nkeys, untrusted, values, valid))
	{
		/* one of them does not fit: find out which */
		for (int i = 0; i < nkeys; i++)
		{
			CHECK_FOR_INTERRUPTS();
			if (!parse_guarded(key, keys, lengths, i, i + 1, untrusted, values, valid))
				valid[i] = false;
		}
	}
	settings_restore(nestlevel);
}
