/*
 * plan.c
 *		The queries that read a tracked table, and their plans.
 *
 * There are two: the rows of a list of keys (an array per key column in, one
 * index lookup each), and the rows after a key in key order.  They name
 * everything with its schema, so they mean the same under any search path.
 *
 * The plans are generic and must stay right while the table grows from
 * nothing to millions of rows, so they are made with everything but index
 * scans and nested loops disabled.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "plan.h"

static char *
qualified(Oid nspid, const char *name)
{
	return psprintf("%s.%s", quote_identifier(get_namespace_name(nspid)), name);
}

/* schema.name of an operator, whatever the search path */
static char *
operator_name(Oid operator)
{
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	name = qualified(form->oprnamespace, NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return name;
}

static void
append_operator(StringInfo sql, Oid operator)
{
	appendStringInfo(sql, " OPERATOR(%s) ", operator_name(operator));
}

/* likewise of a collation */
static char *
collation_name(Oid collation)
{
	HeapTuple	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	Form_pg_collation form;
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", collation);
	form = (Form_pg_collation) GETSTRUCT(tuple);
	name = qualified(form->collnamespace, quote_identifier(NameStr(form->collname)));
	ReleaseSysCache(tuple);
	return name;
}

/*
 * A column of the key or scope as an operand.  Some operators take no domains (those of
 * enums); a cast to the base type does not keep the index from being used.
 * The index may have a collation of its own.
 */
static void
append_column(StringInfo sql, const PollSource *source, const PollKeyColumn *column)
{
	const char *name = quote_identifier(get_attname(source->relid, column->attnum, false));

	if (column->is_domain)
		appendStringInfo(sql, "CAST(t.%s AS %s)", name, format_type_be_qualified(column->type));
	else
		appendStringInfo(sql, "t.%s", name);
	if (OidIsValid(column->collation))
		appendStringInfo(sql, " COLLATE %s", collation_name(column->collation));
}

/*
 * The element type of the array in which a key column is passed.  There are no
 * arrays of arrays, and unnest() takes composites apart: those go as text.
 */
Oid
poll_plan_element(const PollKeyColumn *column)
{
	if (OidIsValid(get_element_type(column->type)) || type_is_rowtype(column->type))
		return TEXTOID;
	return column->type;
}

static SPIPlanPtr
prepare(const char *sql, int nargs, Oid *argtypes)
{
	SPIPlanPtr	plan = SPI_prepare_cursor(sql, nargs, argtypes, CURSOR_OPT_GENERIC_PLAN);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

SPIPlanPtr
poll_plan_lookup(const PollSource *source)
{
	const PollKey *key = source->key;
	Oid			argtypes[INDEX_MAX_KEYS];
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %sk.n FROM ROWS FROM (", source->columns);
	for (int i = 0; i < key->ncolumns; i++)
	{
		argtypes[i] = get_array_type(poll_plan_element(&key->columns[i]));
		appendStringInfo(&sql, "%spg_catalog.unnest($%d)", i > 0 ? ", " : "", i + 1);
	}
	appendStringInfoString(&sql, ") WITH ORDINALITY AS k(");
	for (int i = 0; i < key->ncolumns; i++)
		appendStringInfo(&sql, "k%d, ", i);
	appendStringInfo(&sql, "n) JOIN %s%s AS t ON ", source->only ? "ONLY " : "", source->name);
	for (int i = 0; i < key->ncolumns; i++)
	{
		const PollKeyColumn *column = &key->columns[i];

		appendStringInfoString(&sql, i > 0 ? " AND " : "");
		append_column(&sql, source, &key->columns[i]);
		append_operator(&sql, column->eq_operator);
		if (poll_plan_element(column) == column->type)
			appendStringInfo(&sql, "k.k%d", i);
		else
			appendStringInfo(&sql, "CAST(k.k%d AS %s)", i, format_type_be_qualified(column->type));
	}
	return prepare(sql.data, key->ncolumns, argtypes);
}

/*
 * Can the key be compared with one row comparison?  Not if its columns differ
 * in direction or, as with a type that has operators in another schema, in the
 * operator's name.
 */
static bool
one_operator(const PollKey *key)
{
	for (int i = 1; i < key->ncolumns; i++)
		if (strcmp(operator_name(key->columns[i].after_operator),
				   operator_name(key->columns[0].after_operator)) != 0)
			return false;
	return true;
}

/* the condition "after the key in $1.." */
static void
append_after(StringInfo sql, const PollSource *source)
{
	const PollKey *key = source->key;

	if (one_operator(key))
	{
		appendStringInfoString(sql, "ROW(");
		for (int i = 0; i < key->ncolumns; i++)
		{
			appendStringInfoString(sql, i > 0 ? ", " : "");
			append_column(sql, source, &key->columns[i]);
		}
		appendStringInfoString(sql, ")");
		append_operator(sql, key->columns[0].after_operator);
		appendStringInfoString(sql, "ROW(");
		for (int i = 0; i < key->ncolumns; i++)
			appendStringInfo(sql, "%s$%d", i > 0 ? ", " : "", i + 1);
		appendStringInfoString(sql, ")");
		return;
	}

	/* for the index; what follows has no bound that it could use */
	append_column(sql, source, &key->columns[0]);
	append_operator(sql, key->columns[0].from_operator);
	appendStringInfoString(sql, "$1 AND (");
	for (int i = 0; i < key->ncolumns; i++)
	{
		appendStringInfoString(sql, i > 0 ? " OR (" : "(");
		for (int j = 0; j <= i; j++)
		{
			appendStringInfoString(sql, j > 0 ? " AND " : "");
			append_column(sql, source, &key->columns[j]);
			append_operator(sql, j < i ? key->columns[j].eq_operator :
							key->columns[j].after_operator);
			appendStringInfo(sql, "$%d", j + 1);
		}
		appendStringInfoString(sql, ")");
	}
	appendStringInfoString(sql, ")");
}

/* the condition "in the scope in $first.."; returns how many arguments that has */
static int
append_scope(StringInfo sql, const PollSource *source, int first, uint64 scope_nulls,
			 Oid *argtypes)
{
	int			n = 0;

	for (int i = 0; i < source->scope->ncolumns; i++)
	{
		const PollKeyColumn *column = &source->scope->columns[i];

		appendStringInfoString(sql, i > 0 ? " AND " : "");
		append_column(sql, source, column);
		if (scope_nulls & UINT64CONST(1) << i)
			appendStringInfoString(sql, " IS NULL");
		else
		{
			append_operator(sql, column->eq_operator);
			appendStringInfo(sql, "$%d", first + n);
			argtypes[n++] = column->type;
		}
	}
	return n;
}

SPIPlanPtr
poll_plan_scan(const PollSource *source, bool after, uint64 scope_nulls)
{
	const PollKey *key = source->key;
	int			nscope = source->scope ? source->scope->ncolumns : 0;
	Oid		   *argtypes = palloc(sizeof(Oid) * (key->ncolumns + 1 + nscope));
	int			nargs = after ? key->ncolumns : 0;
	int			limit;
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < nargs; i++)
		argtypes[i] = key->columns[i].type;
	argtypes[nargs++] = INT8OID;
	limit = nargs;

	appendStringInfo(&sql, "SELECT %s0 FROM %s%s AS t", source->columns,
					 source->only ? "ONLY " : "", source->name);
	if (after || nscope > 0)
		appendStringInfoString(&sql, " WHERE ");
	if (after)
	{
		appendStringInfoChar(&sql, '(');
		append_after(&sql, source);
		appendStringInfoChar(&sql, ')');
	}
	if (nscope > 0)
	{
		appendStringInfoString(&sql, after ? " AND " : "");
		nargs += append_scope(&sql, source, nargs + 1, scope_nulls, argtypes + nargs);
	}
	appendStringInfoString(&sql, " ORDER BY ");
	for (int i = 0; i < key->ncolumns; i++)
	{
		appendStringInfoString(&sql, i > 0 ? ", " : "");
		append_column(&sql, source, &key->columns[i]);
		appendStringInfoString(&sql, " USING");
		append_operator(&sql, key->columns[i].sort_operator);
	}
	appendStringInfo(&sql, "LIMIT $%d", limit);
	return prepare(sql.data, nargs, argtypes);
}

static void
set_planner(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Makes the plan, unless it is made already, with settings that lead to the
 * key's index.  They are back before the plan runs: it may call functions that
 * make plans of their own.
 */
static void
make_plan(const PollSource *source, SPIPlanPtr plan, const char *allow)
{
	static const char *const on[] = {
		"enable_nestloop", "enable_indexscan", "enable_indexonlyscan"
	};
	static const char *const off[] = {
		"jit", "enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_mergejoin",
		"enable_hashjoin"
	};
	int			nestlevel = NewGUCNestLevel();
	CachedPlan *cached;
	CachedPlanSource *plansource;

	for (int i = 0; i < lengthof(on); i++)
		set_planner(on[i], "on");
	for (int i = 0; i < lengthof(off); i++)
		if (allow == NULL || strcmp(off[i], allow) != 0)
			set_planner(off[i], "off");
	cached = SPI_plan_get_cached_plan(plan);
	AtEOXact_GUC(true, nestlevel);
	if (cached != NULL)
		ReleaseCachedPlan(cached, CurrentResourceOwner);

	/* it was made by name, perhaps anew: is it still our table's? */
	plansource = linitial(SPI_plan_get_plan_sources(plan));
	if (!list_member_oid(plansource->relationOids, source->relid))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("table %s was renamed during a poll", source->name),
				 errhint("Poll again.")));
}

/* Runs one of the source's plans under the active snapshot. */
void
poll_plan_run(const PollSource *source, SPIPlanPtr plan, const char *allow,
			  int nargs, const Datum *values, const Oid *types, DestReceiver *dest)
{
	SPIExecuteOptions options = {0};
	ParamListInfo params = makeParamList(nargs);
	int			result;

	for (int i = 0; i < nargs; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = types[i];
	}
	options.params = params;
	options.read_only = true;
	options.dest = dest;

	make_plan(source, plan, allow);
	result = SPI_execute_plan_extended(plan, &options);
	if (result < 0)
		elog(ERROR, "could not read %s: %s", source->name, SPI_result_code_string(result));
}
