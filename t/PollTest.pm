# What the TAP tests share: a server with the extension, connections, polls,
# mirrors, and child processes.
#
# A mirror is a client: it polls one feed, keeps a copy of the table, and
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
  new_node connect_to fetch_value decode_json peak_memory
  start_child finish_children
  random_seed log_uniform table_rows differences
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
			AutoInactiveDestroy => 1
		});
}

# The first column of the first row.
sub fetch_value
{
	my ($db, $sql, @values) = @_;

	return ($db->selectrow_array($sql, undef, @values))[0];
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

package PollMirror;

use strict;
use warnings;

sub new
{
	my ($class, $feed, $cursor) = @_;

	return bless {
		feed => $feed,
		cursor => $cursor,
		rows => {},
		seen => {},
		polls => 0,
		delivered => 0,
		behind => 0,
		syncs => defined $cursor ? 0 : 1,
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

sub fault
{
	my ($self, $text) = @_;

	push @{ $self->{faults} }, $text if @{ $self->{faults} } < 20;
	return;
}

# Takes one change.  The rows of a full sync have no version and come once
# each; so does every pair of key and version after that.
sub take
{
	my ($self, $op, $id, $data, $version) = @_;
	my $pair = $id . '/' . ($version // 'sync');

	$self->fault("$op of $pair was delivered twice") if $self->{seen}{$pair}++;
	$self->{delivered}++;
	if ($op eq 'upsert')
	{
		$self->{rows}{$id} = $json->encode($data);
		$self->fault("the row of key $id has another id") if $data->{id} ne $id;
	}
	elsif ($op eq 'delete')
	{
		delete $self->{rows}{$id};
	}
	else
	{
		$self->fault("unknown op $op");
	}
	return;
}

# One call of poll.poll(); returns the page.
sub poll
{
	my ($self, $db, $max_rows) = @_;
	my $feed = $self->{feed};
	my $page = PollTest::decode_json(PollTest::fetch_value($db,
		'SELECT poll.poll(ARRAY[?]::text[], ?, ?)', $feed, $self->{cursor}, $max_rows));
	my $changes = $page->{changes}{$feed};

	$self->{polls}++;
	if ($page->{behind})
	{
		$self->{behind}++;
		$self->fault('behind, but not as it should be')
		  if @$changes || !$page->{has_more} || $page->{cursor} ne ($self->{cursor} // '');
	}
	$self->fault('too many rows') if @$changes > $max_rows;
	$self->take($_->{op}, $_->{key}{id}, $_->{data}, $_->{version}) foreach @$changes;
	$self->{cursor} = $page->{cursor};
	return $page;
}

# One call of poll.changes(), of which only the first rows are taken: as many as
# the function says, given how many there are.
sub poll_rows
{
	my ($self, $db, $max_rows, $how_many) = @_;
	my $rows = $db->selectall_arrayref(
		'SELECT op, key, data, version, cursor FROM poll.changes(?, ?, ?)',
		undef, $self->{feed}, $self->{cursor}, $max_rows);

	$self->{polls}++;
	foreach my $row (@$rows[ 0 .. $how_many->(scalar @$rows) - 1 ])
	{
		my ($op, $key, $data, $version, $cursor) = @$row;

		$self->take($op, PollTest::decode_json($key)->{id},
			defined $data ? PollTest::decode_json($data) : undef, $version);
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
