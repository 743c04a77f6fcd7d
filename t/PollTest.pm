# What the TAP tests share: a server with the extension, connections, polls,
# mirrors, and child processes.
#
# A mirror is a client: it polls one feed or a few, keeps a copy of the rows, and
# complains when something is delivered twice.

package PollTest;

use strict;
use warnings;

use DBI;
use Exporter 'import';
use JSON::PP ();
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  new_node connect_to fetch_value wait_for decode_json peak_memory
  start_child finish_children start_program wait_for_end end_with_test
  random_seed log_uniform table_rows feed_rows differences
);

# JSON::PP comes with Perl; JSON::XS is ten times as fast.
my $json = eval { require JSON::XS; JSON::XS->new } || JSON::PP->new;
$json->canonical;

sub decode_json { return $json->decode($_[0]); }

# A running server with the extension in database postgres.  Options:
#	preload		0: without shared_preload_libraries
#	conf		more settings, text
#	streaming	1: for standbys
sub new_node
{
	my ($name, %option) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => $option{streaming} ? 1 : 0);
	$node->append_conf('postgresql.conf', <<'CONF');
max_prepared_transactions = 20
max_connections = 100
deadlock_timeout = '50ms'
max_wal_size = '2GB'
statement_timeout = '5min'
CONF
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'poll_ext'\n")
	  if $option{preload} // 1;
	$node->append_conf('postgresql.conf', $option{conf}) if $option{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION poll_ext');
	return $node;
}

sub connect_to
{
	my ($node, $database) = @_;

	return DBI->connect(
		sprintf('dbi:Pg:dbname=%s;host=%s;port=%d', $database // 'postgres', $node->host, $node->port),
		undef, undef,
		{
			RaiseError => 1,
			PrintError => 0,
			PrintWarn => 0,
			AutoInactiveDestroy => 1,
			# the next transaction may be in a session that does not know it
			pg_server_prepare => $node->isa('PollPooler') ? 0 : 1
		});
}

# The first column of the first row.
sub fetch_value
{
	my ($db, $sql, @values) = @_;

	return ($db->selectrow_array($sql, undef, @values))[0];
}

# Waits until the query returns true; false if it does not within 20 seconds.
sub wait_for
{
	my ($db, $sql, @values) = @_;

	foreach (1 .. 400)
	{
		return 1 if fetch_value($db, $sql, @values);
		select undef, undef, undef, 0.05;
	}
	return 0;
}

# The most memory that the session's backend has had, in MB.  Needs /proc.
sub peak_memory
{
	my ($db) = @_;
	my ($kilobytes) = slurp_file('/proc/' . $db->{pg_pid} . '/status') =~ /^VmHWM:\s+(\d+) kB/m;

	return $kilobytes / 1024;
}

# The seed of this run: POLL_TEST_SEED, or a new one.  Printed, so that a run
# that failed can be tried again.
sub random_seed
{
	my $seed = $ENV{POLL_TEST_SEED} // int(rand(1_000_000_000));

	note "POLL_TEST_SEED=$seed";
	return $seed;
}

# 1 to max, each order of magnitude as likely as any other
sub log_uniform
{
	my ($max) = @_;

	return int(exp(rand() * log($max + 1)));
}

# The rows of the table as a mirror keeps them: JSON by id.
sub table_rows
{
	my ($db, $table) = @_;
	my $rows = $db->selectall_arrayref("SELECT id, row_to_json(t) FROM $table AS t");

	return { map { $_->[0] => $json->encode($json->decode($_->[1])) } @$rows };
}

# What a mirror of these feeds should have: as its {rows}.  where: a condition
# for the rows of the scope.
sub feed_rows
{
	my ($db, $feeds, $where) = @_;
	my %rows;

	foreach my $feed (@$feeds)
	{
		my ($relation, $key, $columns) = $db->selectrow_array(<<'SQL', undef, $feed);
SELECT relation::text,
	   (SELECT string_agg(format('%L, t.%I', k, k), ', ') FROM unnest(key) k),
	   coalesce((SELECT string_agg(format('t.%I', c), ', ') FROM unnest(columns) c), 't.*')
  FROM poll.feeds WHERE feed = $1
SQL
		my $rows = $db->selectall_arrayref("SELECT json_build_object($key), row_to_json(shown)"
			  . " FROM $relation AS t, LATERAL (SELECT $columns) AS shown WHERE " . ($where // 'true'));

		$rows{ PollMirror::key_name($feeds, $feed, $json->decode($_->[0])) } =
		  $json->encode($json->decode($_->[1]))
		  foreach @$rows;
	}
	return \%rows;
}

# What a mirror has and should not have, or should have and has not; as text.
sub differences
{
	my ($got, $want) = @_;
	my %all = (%$got, %$want);
	my @lines;

	foreach my $id (sort keys %all)
	{
		my ($a, $b) = map { $_->{$id} // 'nothing' } $got, $want;
		push @lines, "$id: mirror has $a, table has $b" if $a ne $b;
	}
	splice @lines, 10, @lines, '...' if @lines > 10;
	return join "\n", @lines;
}

# Runs the function in a child process.  What it returns, a reference to plain
# data, comes back from finish_children().
sub start_child
{
	my ($name, $function) = @_;

	pipe(my $reader, my $writer) or die "pipe: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		# no END blocks: they would stop the parent's servers
		close $reader;
		my $result = eval { $function->() };
		print $writer $json->encode($@ ? { error => "$@" } : { result => $result });
		close $writer;
		POSIX::_exit(0);
	}
	close $writer;
	return { name => $name, pid => $pid, reader => $reader };
}

# The results, in order; a child that died fails the test.
sub finish_children
{
	my @results;

	foreach my $child (@_)
	{
		my $text = do { local $/; readline $child->{reader} };
		waitpid $child->{pid}, 0;
		my $answer = $text ? $json->decode($text) : { error => "exit status $?" };
		ok(!$answer->{error}, "$child->{name} ended well") or diag $answer->{error};
		push @results, $answer->{result};
	}
	return @results;
}

my @programs;

# A program, by its {pid}, ends when the test does.
sub end_with_test { push @programs, @_; return; }

# Runs a program until the test ends.  What it says is in {log}, a file.  Waits until
# the function, which gets the program, returns true.
sub start_program
{
	my ($log, $ready, @command) = @_;
	my $self = { log => $log };

	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		# with its children
		setpgrp;
		open STDOUT, '>', $log;
		open STDERR, '>&', \*STDOUT;
		exec @command or POSIX::_exit(1);
	}
	$self->{group} = 1;
	end_with_test($self);
	foreach (1 .. 200)
	{
		return $self if $ready->($self);
		select undef, undef, undef, 0.05;
	}
	die "$command[0] does not start:\n" . (-e $log ? slurp_file($log) : '');
}

# Waits for the end of a program, 20 seconds if not told otherwise.  Its status, as in
# $?; that of SIGKILL if it had to be killed.
sub wait_for_end
{
	my ($self, $seconds) = @_;

	local $SIG{ALRM} = sub { kill 'KILL', $self->{pid} };
	alarm($seconds // 20);
	waitpid $self->{pid}, 0;
	my $status = $?;
	alarm 0;
	$self->{pid} = undef;
	return $status;
}

END
{
	# not in children, and without a change of the exit code
	my $code = $?;
	foreach (grep { $_->{pid} && getppid() != $_->{pid} } @programs)
	{
		kill 'KILL', $_->{group} ? -$_->{pid} : $_->{pid};
		waitpid $_->{pid}, 0;
	}
	$? = $code;
}

package PollMirror;

use strict;
use warnings;

# feed: a name, or a reference to a list.  Options:
#	scope		JSON text
#	repeats		1: changes may come again
sub new
{
	my ($class, $feed, $cursor, %option) = @_;

	return bless {
		feeds => ref $feed ? $feed : [$feed],
		scope => $option{scope},
		repeats => $option{repeats},
		cursor => $cursor,
		rows => {},
		seen => {},
		polls => 0,
		delivered => 0,
		truncates => 0,
		behind => 0,
		syncs => defined $cursor ? 0 : 1,
		expired => [],
		faults => []
	}, $class;
}

# Forgets everything: the next poll begins a full sync.
sub restart
{
	my ($self) = @_;

	@$self{qw(cursor rows seen)} = (undef, {}, {});
	$self->{syncs}++;
	return;
}

# After PT410.
sub expire
{
	my ($self) = @_;

	push @{ $self->{expired} }, $self->{cursor};
	$self->restart;
	return;
}

sub fault
{
	my ($self, $text) = @_;

	push @{ $self->{faults} }, $text if @{ $self->{faults} } < 20;
	return;
}

# How a row is called in {rows}: by its key, with one column by the value alone;
# with several feeds, by the feed too.
sub key_name
{
	my ($feeds, $feed, $key) = @_;
	my @values = values %$key;
	my $name = @values == 1 ? $values[0] : $json->encode($key);

	return @$feeds == 1 ? $name : "$feed $name";
}

sub forget_feed
{
	my ($self, $feed) = @_;
	my @gone = @{ $self->{feeds} } == 1 ? keys %{ $self->{rows} } : grep { /^\Q$feed\E / } keys %{ $self->{rows} };

	delete @{ $self->{rows} }{@gone};
	$self->{truncates}++;
	return;
}

# Takes one change.  The rows of a full sync have no version and come once
# each; so does every pair of key and version after that.
sub take
{
	my ($self, $feed, $op, $key, $data, $version) = @_;
	my $text = $data ? $json->encode($data) : undef;
	my $name = defined $key ? key_name($self->{feeds}, $feed, $key) : "all of $feed";
	my $pair = $name . '/' . ($version // 'sync');

	$self->fault("$op of $pair was delivered twice") if $self->{seen}{$pair}++ && !$self->{repeats};
	$self->fault("$op of $pair has " . (defined $key ? 'a' : 'no') . ' key')
	  if (defined $key) != ($op ne 'truncate');
	$self->{delivered}++;
	if ($op eq 'upsert')
	{
		$self->{rows}{$name} = $text;
		$self->fault("the row of key $name has another key")
		  if grep { exists $data->{$_} && $data->{$_} ne $key->{$_} } keys %$key;
	}
	elsif ($op eq 'delete')
	{
		delete $self->{rows}{$name};
	}
	elsif ($op eq 'truncate')
	{
		$self->forget_feed($feed);
	}
	else
	{
		$self->fault("unknown op $op");
	}
	return;
}

# Takes an answer of poll.poll().
sub take_page
{
	my ($self, $page, $max_rows) = @_;
	my $changes = 0;

	foreach my $feed (@{ $self->{feeds} })
	{
		$changes += @{ $page->{changes}{$feed} };
		$self->take($feed, @$_{qw(op key data version)}) foreach @{ $page->{changes}{$feed} };
	}
	$self->{polls}++;
	if ($page->{behind})
	{
		$self->{behind}++;
		$self->fault('behind, but not as it should be')
		  if $changes || !$page->{has_more} || $page->{cursor} ne ($self->{cursor} // '');
	}
	$self->fault('too many rows') if $changes > $max_rows;
	$self->{cursor} = $page->{cursor};
	return;
}

# One call of poll.poll(); returns the page.
sub poll
{
	my ($self, $db, $max_rows) = @_;
	my $page = PollTest::decode_json(PollTest::fetch_value($db,
		'SELECT poll.poll(?, ?, ?, ?::jsonb)', @$self{qw(feeds cursor)}, $max_rows, $self->{scope}));

	$self->take_page($page, $max_rows);
	return $page;
}

# One call of poll.poll() by a client that knows only times: since that of the
# last answer, or on with the cursor while there is none.  What came before may
# come again, so {repeats} is for it.
sub poll_since
{
	my ($self, $db, $max_rows) = @_;
	my $since = $self->{since};
	my $page = PollTest::decode_json(PollTest::fetch_value($db, 'SELECT poll.poll(?, ?, ?, ?::jsonb, ?)',
		$self->{feeds}, defined $since ? undef : $self->{cursor}, $max_rows, @$self{qw(scope since)}));

	$self->fault('a time while there is more') if $page->{has_more} && defined $page->{timestamp};
	$self->{cursor} = undef if defined $since;
	$self->take_page($page, $max_rows);
	$self->{since} = $page->{timestamp};
	return $page;
}

# Polls by time until an answer has one.
sub drain_since
{
	my ($self, $db, $max_rows) = @_;

	foreach (1 .. 5000)
	{
		$self->poll_since($db, PollTest::log_uniform($max_rows));
		return if defined $self->{since};
		select undef, undef, undef, 0.01;
	}
	$self->fault('polls in circles');
	return;
}

# One call of poll.changes(), of which only the first rows are taken: as many as
# the function says, given how many there are.  For one feed.
sub poll_rows
{
	my ($self, $db, $max_rows, $how_many) = @_;
	my ($feed) = @{ $self->{feeds} };
	my $rows = $db->selectall_arrayref(
		'SELECT op, key, data, version, cursor FROM poll.changes(?, ?, ?, ?::jsonb)',
		undef, $feed, $self->{cursor}, $max_rows, $self->{scope});

	$self->{polls}++;
	foreach my $row (@$rows[ 0 .. $how_many->(scalar @$rows) - 1 ])
	{
		my ($op, $key, $data, $version, $cursor) = @$row;

		$self->take($feed, $op, (map { defined $_ ? PollTest::decode_json($_) : undef } $key, $data), $version)
		  if $op ne 'skip';
		$self->{cursor} = $cursor;
	}
	return;
}

# Polls until there is no more, with pages of random sizes.  A server that never
# gets there is a fault, not a test that hangs.
sub drain
{
	my ($self, $db, $max_rows) = @_;

	return if $self->{gave_up};
	foreach (1 .. 5000)
	{
		my $page = $self->poll($db, PollTest::log_uniform($max_rows));

		return if !$page->{has_more};
		select undef, undef, undef, 0.01 if $page->{behind};
	}
	$self->{gave_up} = 1;
	$self->fault('polls in circles');
	return;
}

# As plain data, for the parent process.
sub report
{
	my ($self) = @_;

	return { map { $_ => $self->{$_} } grep { $_ ne 'seen' } keys %$self };
}

1;
