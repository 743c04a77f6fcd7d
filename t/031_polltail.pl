# polltail prints each change at least once, in order, whatever interrupts it, and
# ends when it should.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IO::File;
use IO::Pty;
use PollTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $program = 'bin/polltail';

# Built with "make -C bin"; dev/test does so, with AddressSanitizer.
plan skip_all => "$program is not built" if !-x $program;

my $node = new_node('polltail');
my $db = connect_to($node);
my $folder = PostgreSQL::Test::Utils::tempdir();
my $files = 0;

# ---- helpers ----

# Starts it with these arguments; what it writes is in {out} and {err}, files.
# Options, before them, in a hash: out, err (handles instead), user, pgoptions.
sub start_tail
{
	my %option = ref $_[0] ? %{ shift() } : ();
	my $name = sprintf '%s/tail_%d', $folder, $files++;
	my $self = { out => "$name.out", err => "$name.err" };

	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		open STDOUT, '>&', $option{out} // (IO::File->new($self->{out}, 'w') // die "$!");
		open STDERR, '>&', $option{err} // (IO::File->new($self->{err}, 'w') // die "$!");
		$ENV{ASAN_OPTIONS} = 'detect_leaks=1';
		$ENV{PGOPTIONS} = $option{pgoptions} // '';
		delete $ENV{PGAPPNAME};
		exec $program, '-d', 'postgres', '-h', $node->host, '-p', $node->port, $option{user} ? ('-U', $option{user}) : (), @_;
	}
	end_with_test($self);
	return $self;
}

sub content { return -e $_[0] ? slurp_file($_[0]) : ''; }
sub lines { return split /\n/, content($_[0]{out}); }

# Waits for its end, 20 seconds if not told otherwise.  Its exit code; -1 if it was killed.
sub finish
{
	my $status = wait_for_end(@_);
	my ($self) = @_;

	unlike(content($self->{err}), qr/Sanitizer|runtime error/, 'no sanitizer complains');
	return $status & 127 ? -1 : $status >> 8;
}

sub stop_tail
{
	my ($self) = @_;

	kill 'TERM', $self->{pid};
	is(finish($self, 5), 0, 'it ends by SIGTERM');
	return;
}

# Runs it to its end.
sub run_tail
{
	my $self = start_tail(@_);

	$self->{code} = finish($self);
	$self->{said} = content($self->{err});
	$self->{said} =~ s/^polltail: //mg;
	return $self;
}

# Until the function returns true; false if it does not within 20 seconds.
sub until_true
{
	my ($function) = @_;

	foreach (1 .. 400)
	{
		return 1 if $function->();
		sleep 0.05;
	}
	return 0;
}

sub says { my ($self, $what) = @_; return until_true(sub { content($self->{out}) =~ $what }); }

my $session = q(FROM pg_stat_activity WHERE application_name = 'polltail');

# It has polled, so what happens from now on is news.
sub is_following
{
	return wait_for($db, "SELECT count(*) = 1 $session AND state = 'idle' AND query LIKE '%poll.poll(%'");
}

# Not only asked whether there is such a function.
sub is_waiting { return wait_for($db, "SELECT count(*) = 1 $session AND state = 'active' AND query LIKE 'SELECT poll.wait(%'"); }
sub decoded { return map { decode_json($_) } @_; }
sub ids { return map { $_->{key}{id} } decoded(@_); }
sub insert { $db->do('INSERT INTO messages SELECT i, ? FROM generate_series(?::int, ?::int) AS i', undef, "m", $_[0], $_[1] // $_[0]); return; }

# A pipe that nobody reads.
sub new_pipe { pipe(my $reader, my $writer) or die "pipe: $!"; return ($reader, $writer); }

$db->do(<<'SQL');
CREATE TABLE messages (id int PRIMARY KEY, body text);
CREATE TABLE rooms (id int PRIMARY KEY);
CREATE TABLE "odd ""name" (k text PRIMARY KEY, j json);
SELECT poll.track('messages'), poll.track('rooms'), poll.track('"odd ""name"', 'odd');
CREATE ROLE reader LOGIN;
GRANT SELECT ON messages TO reader;
SQL

# The function of servers that can wait, or one that does the same.
$db->do(<<'SQL') if !fetch_value($db, q(SELECT to_regprocedure('poll.wait(text[],text,interval,jsonb)')));
CREATE FUNCTION poll.wait(feeds text[], cursor text, timeout interval, scope jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. extract(epoch FROM timeout) * 20 LOOP
		IF poll.has_changes(feeds, cursor, scope) THEN RETURN true; END IF;
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN false;
END $$;
SQL
$db->do('REVOKE EXECUTE ON FUNCTION poll.wait FROM PUBLIC');

# ---- from now on ----

my @often = ('--interval', 0.1);

insert(1, 5);
my $tail = start_tail(@often, 'messages', 'rooms');
ok(is_following(), 'it follows');
insert(6);
$db->do('INSERT INTO rooms VALUES (1)');
$db->do('DELETE FROM messages WHERE id = 6');
$db->do('TRUNCATE rooms');
ok(says($tail, qr/truncate\n/), 'it prints');
my $time = qr/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+00/;
my $text = join "\n", lines($tail);
unlike($text, qr/"id":[1-5]\b/, 'nothing of what was there before');
like($text, qr/^$time messages delete \{"id":6\}$/m, 'a delete');
like($text, qr/^$time rooms truncate$/m, 'a truncate');
stop_tail($tail);

my $now = fetch_value($db, 'SELECT extract(epoch FROM now())');
$tail = start_tail(@often, 'messages');
is_following();
insert(7);
says($tail, qr/\n/);
like(content($tail->{out}), qr/^$time messages upsert \{"id":7\} \{"id":7,"body":"m"\}\n\z/, 'a line');
my ($printed) = content($tail->{out}) =~ /^($time)/;
cmp_ok(abs(fetch_value($db, 'SELECT extract(epoch FROM ?::timestamptz)', $printed) - $now), '<', 20, 'with its time, in UTC');
stop_tail($tail);

# ---- order ----

my $cursor_file = "$folder/order";
is(run_tail('--once', '-c', $cursor_file, 'rooms', 'messages')->{code}, 0, 'a mark');
foreach (101 .. 110)
{
	insert($_);
	$db->do('INSERT INTO rooms VALUES (?)', undef, $_);
}
$tail = run_tail('--once', '--json', '-c', $cursor_file, 'messages', 'rooms');
is(join(' ', map { "$_->{feed}$_->{key}{id}" } decoded(lines($tail))), join(' ', map { "messages$_ rooms$_" } 101 .. 110),
	'changes of two feeds are in the order in which they were made');

# a clock that was set back, between a truncate and what follows it
$db->do('TRUNCATE rooms');
$db->do('INSERT INTO rooms VALUES (1)');
$db->do('UPDATE poll.change_0 SET version = version - 60000000 WHERE xid = (SELECT max(xid) FROM poll.change_0)');
$tail = run_tail('--once', '--json', '-c', $cursor_file, 'messages', 'rooms');
is(join(' ', map { $_->{op} } decoded(lines($tail))), 'truncate upsert', 'what follows a truncate stays behind it');

# ---- JSON, and what it may hold ----

my @keys = ("a'b", 'a"b', "a\\b", "a\nb\r\tc", "\x01\x1b[31m\x7f", "\x{9b}31m\x{85}", "\x{fc}\x{1f600}\x{2028}", '{"}', '$1; DROP TABLE rooms', '');
$db->do(q(INSERT INTO "odd ""name" VALUES (?, E'{\n\t"a" :\r\n 1}')), undef, $_) foreach @keys;
$tail = run_tail('--full', '--once', '--json', 'odd');
my @lines = lines($tail);
is(scalar @lines, scalar @keys, 'a line for each row');
my @rows = map { JSON::PP->new->utf8->decode($_) } @lines;
is(join('|', map { join ',', sort keys %$_ } @rows), join('|', ('data,feed,key,op,version') x @keys), 'that is JSON, with all its members');
is_deeply([ sort map { $_->{key}{k} } @rows ], [ sort @keys ], 'with all keys');
is_deeply([ map { $_->{data}{j}{a} } @rows ], [ (1) x @keys ], 'and values');
is(join('|', map { join ',', @$_{qw(feed op)}, $_->{version} // 'null' } @rows), join('|', ('odd,upsert,null') x @keys), 'of a full sync');
my $plain = run_tail('--full', '--once', 'odd');
is(scalar(() = lines($plain)), scalar @keys, 'as text, too');
foreach my $output ($plain, $tail)
{
	unlike(content($output->{out}), qr/[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]/, 'nothing that a terminal obeys');
}
like(content($plain->{out}), qr/^odd upsert \{"k":"a\\nb\\r\\tc"\} /m, 'without a time');

foreach my $name ("a'b", 'a"b', "a\\", '{a,b}', 'a,b', '', '$1', '"', "messages\n", "\x{c3}\x{bc}")
{
	my $got = run_tail('--once', $name);
	is($got->{code}, 1, 'there is no such feed');
	like($got->{said}, qr/^unknown feed: There is no feed "\Q@{[ $name =~ tr{\n}{ }r ]}\E", /, 'and that is what is said');
}
my $said = run_tail('--once', 'messages', "o'dd")->{said};
like($said, qr/^hint: SELECT poll\.track\('o''dd'\)/m, 'what to do about an unknown feed');

$db->do(q(SELECT poll.track('"odd ""name"', 'divided', scope => '{k}')));
is(join(' ', map { $_->{key}{k} } decoded(lines(run_tail('--full', '--once', '--json', '--scope', q({"k": "a'b"}), 'divided')))), "a'b", 'a scope');
is(run_tail('--once', '--scope', '{"k"', 'divided')->{code}, 1, 'no scope');

# ---- full sync, cursor file ----

$db->do('TRUNCATE messages');
insert(1, 5000);
$tail = run_tail('--full', '--once', '--json', '-m', 700, 'messages');
is(join(',', ids(lines($tail))), join(',', 1 .. 5000), 'a full sync, page by page');
my $pages = "$folder/pages";
is(run_tail('--full', '--once', '-m', 700, '-e', "wc -l >>$pages", 'messages')->{code}, 0, 'the same by a command');
is(join(' ', split ' ', content($pages)), '700 700 700 700 700 700 700 100', 'once for each page');

# Killed in the middle, again and again: all that was printed by then, and what is
# printed after it.
$cursor_file = "$folder/killed";
my $all = "$folder/all";
my $kills = 0;
foreach my $enough (400, 1500, 3000)
{
	$tail = start_tail({ out => IO::File->new($all, 'a') }, '--full', '--json', '-m', 50, '-c', $cursor_file, '-h', $node->host, 'messages');
	until_true(sub { (() = content($all) =~ /\n/g) >= $enough }) or fail('it prints');
	kill 'KILL', $tail->{pid};
	is(finish($tail), -1, 'killed');
	$kills++ if content($all) !~ /"id":5000,/;
	insert(100_000 + $enough);
}
cmp_ok($kills, '>=', 2, 'in the middle');
$tail = run_tail({ out => IO::File->new($all, 'a') }, '--full', '--once', '--json', '-m', 50, '-c', $cursor_file, 'messages');
my %seen;
my $repeated = grep { $seen{$_}++ } map { /^\{"feed":"messages","op":"upsert","key":\{"id":(\d+)\},.*\}$/ ? $1 : () } split /\n/, content($all);
is(scalar(keys %seen), 5003, 'every row is printed');
cmp_ok($repeated, '<=', 50 * 3 + 3, 'and no more than a page again each time');

# A page that nobody has read: into a pipe that is full.
insert(7001, 9000);
my ($reader, $writer) = new_pipe();
$cursor_file = "$folder/full_pipe";
$tail = start_tail({ out => $writer }, '--full', '--json', '-m', 300, '-c', $cursor_file, 'messages');
close $writer;
my $size = -1;
until_true(sub { my $before = $size; $size = -s $cursor_file && content($cursor_file); sleep 0.3; $size && $size eq $before });
kill 'KILL', $tail->{pid};
finish($tail);
my $taken = do { local $/; <$reader> };
close $reader;
my $rest = content(run_tail('--once', '--json', '-c', $cursor_file, 'messages')->{out});
cmp_ok(length $taken, '>', 10000, 'some pages were taken');
%seen = map { /"id":(\d+)\},.*\}$/ ? ($1 => 1) : () } split /\n/, "$taken\n$rest";
is(scalar(keys %seen), 7003, 'a page that was not read comes again');

is(run_tail('--once', '-c', $cursor_file, 'messages', 'rooms')->{said},
	"the cursor belongs to other feeds or another scope\n"
	  . "hint: A cursor goes on with exactly the feeds and the scope that it came from.\n"
	  . "hint: If the cursor in $cursor_file is not of these feeds and this scope, use another file.\n",
	'a cursor of other feeds');
append_to_file("$folder/garbage", "garbage\n");
is(run_tail('--once', '-c', "$folder/garbage", 'messages')->{code}, 1, 'no cursor at all');
is(content("$folder/garbage"), "garbage\n", 'is left alone');
like(run_tail('--once', '-c', "$folder/none/c", 'messages')->{said}, qr/^cannot write .*none\/c: No such file/, 'a file that cannot be written');
ok(!-e "$cursor_file.new", 'no other file stays');

# ---- count, once, since ----

$cursor_file = "$folder/count";
run_tail('--once', '-c', $cursor_file, 'messages');
insert(10001, 10010);
$tail = run_tail('--count', 3, '--json', '-m', 2, '-c', $cursor_file, 'messages');
is(join(' ', ids(lines($tail))), '10001 10002 10003', 'so many changes');
is($tail->{code}, 0, 'then it ends');
is(join(' ', ids(lines(run_tail('--once', '--json', '-c', $cursor_file, 'messages')))), join(' ', 10004 .. 10010), 'and goes on behind them');
is(content(run_tail('--once', 'messages')->{out}), '', 'from now: nothing');
$now = fetch_value($db, 'SELECT now()');
insert(10011);
like(join('', lines(run_tail('--once', '--since', $now, 'messages'))), qr/"id":10011,[^{]*\}\z/, 'since a time');
is(run_tail('--once', '--since', 'garbage', 'messages')->{code}, 1, 'no time');

# ---- commands ----

$cursor_file = "$folder/exec";
run_tail('--once', '-c', $cursor_file, 'messages');
my $before = content($cursor_file);
insert(11001, 11003);
$tail = run_tail('--once', '-c', $cursor_file, '-e', 'exit 7', 'messages');
is($tail->{code}, 1, 'a command that fails');
is($tail->{said}, "the command has failed with exit code 7, and its page is not done\n", 'is an error');
is(run_tail('--once', '-c', $cursor_file, '-e', 'kill -9 $$', 'messages')->{said}, "the command was ended by signal 9, and its page is not done\n", 'and one that is killed');
is(content($cursor_file), $before, 'the cursor stays');
$tail = run_tail('--once', '-c', $cursor_file, '-e', 'cat', 'messages');
is(join(' ', ids(lines($tail))), '11001 11002 11003', 'and the page comes again');
insert(12001, 14000);
$tail = run_tail('--once', '-m', 10000, '-c', $cursor_file, '-e', q(head -n 1; sh -c 'kill -PIPE $$; echo ignored'; true), 'messages');
is($tail->{code}, 0, 'a command need not read all');
is(join(' ', ids(grep { /^\{/ } lines($tail))), '12001', 'of the page');
is(scalar(grep { !/^\{/ } lines($tail)), 0, 'and ignores no signals');
insert(15001);
$tail = start_tail('-c', $cursor_file, '-e', "echo >$folder/begun; sleep 1.5; cat", 'messages');
until_true(sub { -e "$folder/begun" });
stop_tail($tail);
is(join(' ', ids(lines($tail))), '15001', 'a command that runs is waited for');
is(content(run_tail('--once', '-c', $cursor_file, 'messages')->{out}), '', 'and its page is done');
insert(15002);
$tail = start_tail('-c', $cursor_file, '-e', "echo \$\$ >$folder/pid; exec sleep 100", 'messages');
until_true(sub { content("$folder/pid") =~ /\n/ });
kill 'TERM', $tail->{pid}, content("$folder/pid") =~ /(\d+)/;
is(finish($tail, 5), 0, 'a signal for both of them is no error');
is(join(' ', ids(lines(run_tail('--once', '--json', '-c', $cursor_file, 'messages')))), '15002', 'but the page comes again');

# ---- expired ----

sub expire { $db->do(q(SELECT poll.untrack('rooms'), poll.track('rooms'))); return; }
$cursor_file = "$folder/expired";
run_tail('--once', '-c', $cursor_file, 'rooms');
$before = content($cursor_file);
expire();
$tail = run_tail('--once', '-c', $cursor_file, 'rooms');
is($tail->{code}, 3, 'an expired cursor');
like($tail->{said}, qr/^the cursor has expired: A feed was untracked and tracked again.*\nhint: With --resync .* or remove \Q$cursor_file\E, and begin with --full\.\n\z/, 'and what to do');
is(content($cursor_file), $before, 'it stays');
is(run_tail('--once', '--since', '2001-01-01', 'rooms')->{code}, 3, 'an expired time');
$tail = run_tail('--once', '--resync', '--json', '-c', $cursor_file, 'rooms');
is($tail->{code}, 0, 'with --resync it goes on');
is(join("\n", lines($tail)), qq({"feed":null,"op":"reset","key":null,"data":null,"version":null}\n{"feed":"rooms","op":"upsert","key":{"id":1},"data":{"id":1},"version":null}),
	'with the table');
like($tail->{said}, qr/^the cursor has expired: /, 'and says so');
isnt(content($cursor_file), $before, 'and another cursor');

# while it runs; of an empty table; trimmed
$db->do('TRUNCATE rooms');
$tail = start_tail('--resync', @often, 'rooms');
is_following();
expire();
ok(says($tail, qr/^reset\n\z/), 'a reset also without rows');
insert(16001);
$db->do('INSERT INTO rooms VALUES (5)');
ok(says($tail, qr/^reset\n$time rooms upsert \{"id":5\} \{"id":5\}\n\z/), 'and changes after it');
stop_tail($tail);
$tail = start_tail(@often, 'rooms');
is_following();
kill 'STOP', $tail->{pid};
$db->do('INSERT INTO rooms VALUES (6)');
$db->do(q(SELECT poll.trim('0'))) foreach 1 .. 12;
kill 'CONT', $tail->{pid};
is(finish($tail), 3, 'what is trimmed ends it');
unlike(content($tail->{out}), qr/./, 'with no gap');

# ---- lost connections, and errors that pass ----

$tail = start_tail('--json', '--min', 0.1, '--max', 0.2, 'messages');
is_following();
insert(20001);
says($tail, qr/20001/);
$db->disconnect;
$node->stop('fast');
sleep 2.5;
$node->start;
$db = connect_to($node);
insert(20002);
ok(says($tail, qr/20002/), 'after a restart it goes on');
$db->do("SELECT pg_terminate_backend(pid) $session");
insert(20003);
ok(says($tail, qr/20003/), 'and after its session was terminated');
is(join(' ', ids(lines($tail))), '20001 20002 20003', 'nothing is lost or printed twice');
is(() = content($tail->{err}) =~ /lost the connection/g, 2, 'it says so once each time');
is(() = content($tail->{err}) =~ /connected again/g, 2, 'and when it is over');
stop_tail($tail);

$node->stop('fast');
my $start = time;
like(run_tail('messages')->{said}, qr/^connection to server /, 'no connection at the start');
cmp_ok(time - $start, '<', 5, 'ends it');
$node->start;
$db = connect_to($node);

my $locker = connect_to($node);
$tail = start_tail({ pgoptions => '-c lock_timeout=50ms' }, @often, '--json', 'messages');
is_following();
kill 'STOP', $tail->{pid};
insert(21001);
$locker->begin_work;
$locker->do('LOCK TABLE messages');
kill 'CONT', $tail->{pid};
ok(until_true(sub { content($tail->{err}) =~ /lock timeout, trying again/ }), 'a lock that cannot be had');
sleep 1;
$locker->rollback;
ok(says($tail, qr/21001/), 'passes');
is(() = content($tail->{err}) =~ /trying again/g, 1, 'and is said once');
stop_tail($tail);
$locker->disconnect;

# ---- waiting in the server ----

$tail = start_tail('messages');
ok(is_waiting(), 'it waits in the server, if not told otherwise');
insert(22001);
ok(says($tail, qr/22001/), 'and prints what comes');
is_waiting();
$start = time;
stop_tail($tail);
cmp_ok(time - $start, '<', 2, 'SIGTERM ends it while it waits');
ok(wait_for($db, "SELECT count(*) = 0 $session"), 'also in the server');

$tail = start_tail('messages');
is_waiting();
kill 'INT', $tail->{pid};
is(finish($tail, 5), 0, 'so does SIGINT');

$tail = start_tail('--interval', 3600, 'messages');
is_following();
stop_tail($tail);

$tail = start_tail({ pgoptions => '-c statement_timeout=1s' }, '--wait', 'messages');
is_waiting();
sleep 2.5;
insert(22002);
ok(says($tail, qr/22002/), 'it waits no longer than statements may take');
stop_tail($tail);
is(content($tail->{err}), '', 'without errors');

$tail = start_tail({ user => 'reader' }, '--wait', '--min', 0.1, 'messages');
is_following();
insert(22003);
ok(says($tail, qr/22003/), 'who may not wait polls at intervals');
stop_tail($tail);
like(content($tail->{err}), qr/^polltail: this server has no poll\.wait\(\) for us: polling at intervals instead\n\z/, 'and a note says so');

# ---- intervals ----

# Seconds between its polls, from the server's log.
sub gaps
{
	my ($function, @arguments) = @_;
	my $offset = -s $node->logfile;
	my $polltail = start_tail({ pgoptions => '-c log_min_duration_statement=0' }, @arguments);
	my @times;

	$function->();
	stop_tail($polltail);
	foreach (split /\n/, slurp_file($node->logfile, $offset))
	{
		my ($h, $m, $s) = /^\S+ (\d+):(\d+):([\d.]+) .*polltail.* execute .*poll\.poll\(/ or next;
		push @times, $h * 3600 + $m * 60 + $s;
	}
	return map { my $gap = $times[$_] - $times[ $_ - 1 ]; $gap < 0 ? $gap + 86400 : $gap } 1 .. $#times;
}

my @gaps = gaps(sub { sleep 4.5; insert(23001); sleep 2 }, '--min', 0.2, '--max', 0.9, 'messages');
note "gaps: @gaps";
my @least = (0.2, 0.2, 0.3, 0.45, 0.675, 0.9, 0.9);
is(join(' ', map { $gaps[$_] >= $least[$_] - 0.02 ? 'ok' : $gaps[$_] } 0 .. $#least), join(' ', ('ok') x @least), 'the interval grows while nothing happens');
cmp_ok((sort { $a <=> $b } @gaps[ @least .. $#gaps ])[0], '<', 0.8, 'and is halved by a change');
@gaps = gaps(sub { sleep 2 }, '--interval', 0.5, 'messages');
is(scalar(grep { $_ < 0.48 } @gaps), 0, 'or it stays');
cmp_ok(scalar @gaps, '>=', 2, 'as it was asked for');

# ---- who reads ----

($reader, $writer) = new_pipe();
close $reader;
$tail = start_tail({ out => $writer }, '--full', 'messages');
close $writer;
is(finish($tail), 0, 'when nobody reads, it ends');
is(content($tail->{err}), '', 'without a word');

($reader, $writer) = new_pipe();
$tail = start_tail({ out => $writer }, @often, 'messages');
close $writer;
is_following();
close $reader;
is(finish($tail, 5), 0, 'also when there is nothing to print');

($reader, $writer) = new_pipe();
$tail = start_tail({ out => $writer }, '--full', '-m', 10000, 'messages');
close $writer;
sleep 1;
$start = time;
stop_tail($tail);
cmp_ok(time - $start, '<', 3, 'SIGTERM ends it though nobody reads');

SKIP:
{
	skip 'no /dev/full', 2 if !-c '/dev/full';
	$tail = run_tail({ out => IO::File->new('/dev/full', 'w') }, '--full', '--once', 'messages');
	is($tail->{code}, 1, 'a full disk');
	like($tail->{said}, qr/^cannot write: No space left on device\n/, 'is an error');
}

system("$program -d postgres -h '" . $node->host . "' -p " . $node->port . " --full --once messages >&- 2>$folder/closed");
is($? >> 8, 1, 'standard output that is closed');
like(content("$folder/closed"), qr/^polltail: cannot write: Bad file descriptor\n\z/, 'is an error, too');

# ---- progress ----

foreach my $quiet ([], ['--quiet'])
{
	# a chroot may have no pseudo-terminals
	my $terminal = eval { IO::Pty->new };
SKIP: {
	skip 'no pseudo-terminals here', 1 if !$terminal;
	$tail = start_tail({ err => $terminal->slave }, '--full', '--once', @$quiet, 'messages');
	finish($tail);
	$terminal->close_slave;
	my $shown = '';
	while (sysread $terminal, $shown, 65536, length $shown) { }
	like($shown, @$quiet ? qr/^\z/ : qr/\rpolltail: @{[ scalar(() = lines($tail)) ]} rows, \d+ rows\/s \r?\n\z/, "progress: @$quiet");
	}
}

# ---- the command line ----

like(content(run_tail('--help')->{out}), qr/^Usage:/m, '--help');
like(content(run_tail('--version')->{out}), qr/^polltail \d/, '--version');
foreach ([], ['--interval', 0, 'x'], ['--interval', 'x', 'x'], ['--max-rows', 10001, 'x'], ['--count', 0, 'x'], ['--min', 20, 'x'],
	['--full', '--since', 'now', 'x'], ['--wait', '--interval', 1, 'x'], ['--nonsense', 'x'])
{
	is(run_tail(@$_)->{code}, 1, "error: @$_");
}
is(run_tail('-d', sprintf('host=%s port=%d dbname=postgres', $node->host, $node->port), '-h', 'nonsense', '--once', 'messages')->{code}, 0, 'a connection string');
is(run_tail('-d', sprintf('postgresql:///postgres?host=%s&port=%d', $node->host, $node->port), '--once', 'messages')->{code}, 0, 'a URI');

done_testing();
