# src/siphash.h is SipHash-2-4-128: what OpenSSL says of the same key (bytes 0 to
# 15) and the same input (bytes 0, 1, 2, ... of each length).

use strict;
use warnings;

use FindBin;

use PostgreSQL::Test::Utils;
use Test::More;

my $program = PostgreSQL::Test::Utils::tempdir() . '/siphash';
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';

chomp(my $include = `$pg_config --includedir-server`);
system_or_bail($ENV{CC} // 'cc', '-O1', '-I', $include, '-iquote', "$FindBin::RealBin/../src",
	'-o', $program, "$FindBin::RealBin/siphash.c");

# length => hash; "openssl mac -macopt hexkey:000102030405060708090A0B0C0D0E0F -macopt size:16 SIPHASH"
my %expected = (
	0 => 'A3817F04BA25A8E66DF67214C7550293',
	1 => 'DA87C1D86B99AF44347659119B22FC45',
	2 => '8177228DA4A45DC7FCA38BDEF60AFFE4',
	7 => 'A1F1EBBED8DBC153C0B84AA61FF08239',
	8 => '3B62A9BA6258F5610F83E264F31497B4',
	9 => '264499060AD9BAABC47F8B02BB6D71ED',
	15 => '5493E99933B0A8117E08EC0F97CFC3D9',
	16 => '6EE2A4CA67B054BBFD3315BF85230577',
	17 => '473D06E8738DB89854C066C47AE47740',
	31 => '2939B0183223FAFC1723DE4F52C43D35',
	32 => '7C3956CA5EEAFC3E363E9D556546EB68',
	33 => '77C6077146F01C32B6B69D5F4EA9FFCF',
	47 => 'E61C432B720B19D18EC8D84BDC63151B',
	48 => 'F7E5AEF549F782CF379055A608269B16',
	63 => '5150D1772F50834A503E069A973FBD7C',
);
my @hashes = split /\n/, `$program`;

is(scalar @hashes, 64, '64 lengths');
is($hashes[$_], $expected{$_}, "$_ bytes") foreach sort { $a <=> $b } keys %expected;

done_testing();
