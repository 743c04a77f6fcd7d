# The gateway, and a client that says what it wants, byte by byte.

package PollGateway;

use strict;
use warnings;

use Errno;
use Exporter 'import';
use IO::Socket::INET;
use PollTest;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(start_gateway skip_without_gateway rss http_mirror http_poll);

my $program = 'gateway/poll-gateway';
my $started = 0;

# Built with "make -C gateway"; dev/test does so, with AddressSanitizer.
sub skip_without_gateway
{
	plan skip_all => "$program is not built" if !-x $program;
	return;
}

# Resident memory of a process, in MB.  Needs /proc.
sub rss
{
	my ($pid) = @_;

	return (slurp_file("/proc/$pid/status") =~ /^VmRSS:\s+(\d+) kB/m)[0] / 1024;
}

# Starts one for a server.  The log is in {log}.
sub start_gateway
{
	my ($node, @options) = @_;
	# without the memory that it keeps back to find errors
	local $ENV{ASAN_OPTIONS} = 'quarantine_size_mb=1:malloc_context_size=5:detect_leaks=1';

	return start_program(sprintf('%s/gateway_%d.log', PostgreSQL::Test::Utils::tempdir(), $started++),
		sub { bless $_[0]; ($_[0]{port}) = $_[0]->log =~ /listening on .*:(\d+)$/m },
		$program, '-d', sprintf('host=%s port=%d dbname=postgres', $node->host, $node->port), '-l', '127.0.0.1:0', @options);
}

sub log { return -e $_[0]{log} ? slurp_file($_[0]{log}) : ''; }

# A new connection
sub connection
{
	my ($self) = @_;

	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 10)
	  // die "cannot connect to the gateway: $@";
}

# Sends bytes, and reads an answer to its end: {status, headers (names in lower
# case; those that come twice joined), names (as they came), body}.  Undefined if
# there was none.
sub exchange
{
	my ($self, $bytes, %option) = @_;
	my $socket = $option{socket} // $self->connection;

	local $SIG{PIPE} = 'IGNORE';
	print $socket $bytes;
	$socket->flush;
	return $self->receive($socket, $option{head});
}

# Reads more of it; a signal, such as that a child goes on, is no end.  False at its end.
sub read_more
{
	my ($socket, $text) = @_;
	my $got;

	do { $got = sysread($socket, $$text, 65536, length $$text) } until defined $got || !$!{EINTR};
	return $got;
}

sub receive
{
	my ($self, $socket, $head) = @_;
	my $text = delete ${*$socket}{poll_rest} // '';    # it came with the answer before
	my %answer;

	local $SIG{ALRM} = sub { die "no answer within 30 seconds\n" };
	alarm 30;
	while ($text !~ /\r\n\r\n/)
	{
		read_more($socket, \$text) or (alarm(0), return undef);
	}
	my ($lines, $body) = split /\r\n\r\n/, $text, 2;
	my ($first, @headers) = split /\r\n/, $lines;

	($answer{status}) = $first =~ m{^HTTP/1\.1 (\d{3}) };
	foreach (@headers)
	{
		my ($name, $value) = /^([^:]+): (.*)$/ or die "bad header: $_";
		push @{ $answer{names} }, $name;
		$answer{headers}{ lc $name } .= defined $answer{headers}{ lc $name } ? ", $value" : $value;
	}
	my $length = $head || $answer{status} == 304 ? 0 : $answer{headers}{'content-length'} // 0;
	while (length $body < $length)
	{
		read_more($socket, \$body) or last;
	}
	alarm 0;
	$answer{body} = substr $body, 0, $length, '';
	${*$socket}{poll_rest} = $body;
	return \%answer;
}

# A request: method, path with query, {headers}, body, socket
sub request
{
	my ($self, $method, $path, %option) = @_;
	my $bytes = "$method $path HTTP/1.1\r\nHost: test\r\n";
	my $headers = $option{headers} // {};

	$bytes .= "$_: $headers->{$_}\r\n" foreach sort keys %$headers;
	$bytes .= 'Content-Length: ' . length($option{body}) . "\r\n" if defined $option{body};
	return $self->exchange("$bytes\r\n" . ($option{body} // ''), socket => $option{socket}, head => $method eq 'HEAD');
}

sub get { my ($self, $path, %headers) = @_; return $self->request('GET', $path, headers => \%headers); }

# Calls a function with JSON text.
sub call
{
	my ($self, $function, $json) = @_;

	return $self->request('POST', "/rpc/$function", body => $json, headers => { 'Content-Type' => 'application/json' });
}

# A number of /metrics
sub metric
{
	my ($self, $name) = @_;

	return ($self->get('/metrics')->{body} =~ /^\Q$name\E (\S+)$/m)[0];
}

# How many polls it has answered
sub polls
{
	my ($self) = @_;
	my $metrics = $self->get('/metrics')->{body};
	my $sum = 0;

	$sum += $1 while $metrics =~ /^poll_gateway_requests_total\{route="poll",\S+ (\d+)$/mg;
	return $sum;
}

# A mirror of a feed over HTTP, which knows the tags that go with its cursor, and how
# many answers of each {status} it has got.
sub http_mirror
{
	my ($feed) = @_;

	return { feed => $feed, mirror => PollMirror->new($feed), tags => {}, status => {} };
}

# One request of it, to a gateway; true if there was something new.  A connection may
# have been closed meanwhile, so each has its own.
sub http_poll
{
	my ($client, $gateway, $max_rows) = @_;
	my $mirror = $client->{mirror};
	my $path = "/poll?feeds=$client->{feed}&max_rows=$max_rows" . (defined $mirror->{cursor} ? "&cursor=$mirror->{cursor}" : '');
	my $tag = $client->{tags}{$path};
	my $answer = $gateway->get($path, defined $tag ? ('If-None-Match' => $tag) : ());

	$client->{status}{ $answer->{status} }++;
	if ($answer->{status} == 200)
	{
		my $before = $mirror->{delivered};
		my $page = decode_json($answer->{body});

		$client->{tags} = {} if $page->{cursor} ne ($mirror->{cursor} // '');
		$client->{tags}{$path} = $answer->{headers}{etag};
		$mirror->take_page($page, $max_rows);
		return $page->{has_more} || $mirror->{delivered} > $before;
	}
	return 1 if $answer->{status} == 503 && $answer->{headers}{'retry-after'} eq '1';
	$mirror->fault("status $answer->{status}: $answer->{body}") if $answer->{status} != 304;
	return 0;
}

# Stops it, if it was not told to stop; it must end well, in that many seconds.
sub stop
{
	my ($self, $seconds, $told) = @_;

	kill 'TERM', $self->{pid} if !$told;
	is(wait_for_end($self, $seconds), 0, 'the gateway ends well');
	unlike($self->log, qr/Sanitizer|runtime error/, 'and no sanitizer complains');
	return;
}

1;
