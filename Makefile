# poll_ext, built with PGXS against the first pg_config in PATH.
#
#	make
#	make install		as root, or as whoever owns the PostgreSQL installation
#	make installcheck	all tests, in temporary servers of their own; not as root
#
# Another server: make PG_CONFIG=/path/to/pg_config ...
# With dev/test all of that happens in one go.

MODULE_big = poll_ext
OBJS := poll_ext.o $(sort $(patsubst %.c,%.o,$(wildcard src/*.c)))
SHLIB_EXPORTS = exports.txt

# In the preprocessor's flags, so that the LLVM bitcode is built with it too.
# -iquote: a header of ours never hides a system header of the same name.
PG_CPPFLAGS = -iquote $(srcdir)/src

EXTENSION = poll_ext
DATA = poll_ext--1.0.sql

# Tests are found, not listed.  The variables are set at once (:=), so that
# PGXS takes one that has no test for unset.
REGRESS := $(sort $(patsubst sql/%.sql,%,$(wildcard sql/*.sql)))
ISOLATION := $(sort $(patsubst specs/%.spec,%,$(wildcard specs/*.spec)))
TAP_TESTS := $(if $(wildcard t/*.pl),1)

# Each suite starts a server of its own, with the extension preloaded, and
# creates the extension in its database.  pg_isolation_regress finds NAME in
# specs/NAME.spec and expected/NAME.out, beside the files of pg_regress.
TEST_OPTS = --temp-config=$(srcdir)/dev/postgresql.conf \
	--load-extension=poll_ext --no-locale --encoding=UTF8
REGRESS_OPTS = --temp-instance=./tmp_check $(TEST_OPTS)
ISOLATION_OPTS = --temp-instance=./tmp_check_iso $(TEST_OPTS)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS does not track headers: rebuild everything when one changes.
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h)
