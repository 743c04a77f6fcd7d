/*
 * compat.h
 *		The differences between the supported server versions, in one place.
 *
 * Supported: PostgreSQL 15 and later.  No other file looks at PG_VERSION_NUM.
 */
#ifndef POLL_COMPAT_H
#define POLL_COMPAT_H

#include "access/genam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#if PG_VERSION_NUM < 150000
#error "poll_ext needs PostgreSQL 15 or later"
#endif

/* VARDATA and its like left postgres.h in 16. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* Ownership and privilege checks became generic in 16. */
static inline bool
poll_compat_owns_relation(Oid relid, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, role);
#else
	return pg_class_ownercheck(relid, role);
#endif
}

static inline bool
poll_compat_uses_schema(Oid nspid, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, nspid, role, ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(nspid, role, ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* Truncates a table, for all who look at it from the end of the transaction on. */
static inline void
poll_compat_truncate(Relation rel)
{
	/* of none that a publication would have to know of */
#if PG_VERSION_NUM >= 160000
	ExecuteTruncateGuts(list_make1(rel), list_make1_oid(RelationGetRelid(rel)), NIL,
						DROP_RESTRICT, false, false);
#else
	ExecuteTruncateGuts(list_make1(rel), list_make1_oid(RelationGetRelid(rel)), NIL,
						DROP_RESTRICT, false);
#endif
}

/* 18 added an argument for EXPLAIN's index counters. */
static inline IndexScanDesc
poll_compat_index_beginscan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

/* The primary key's index, if it is not deferrable: 18 also has the others. */
static inline Oid
poll_compat_primary_key(Relation rel)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(rel, false);
#else
	return RelationGetPrimaryKeyIndex(rel);
#endif
}

/* lc_monetary. The server's header for it needs those of ICU since 16. */
extern PGDLLIMPORT char *locale_monetary;

/*
 * Has the client closed its connection?  The server's header for that needs those of
 * GSSAPI, which few have.
 */
extern bool pq_check_connection(void);

static inline bool
poll_compat_client_gone(void)
{
	return MyProcPort != NULL && !pq_check_connection();
}

#endif							/* POLL_COMPAT_H */
