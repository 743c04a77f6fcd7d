# Whatever writers do at the same time, a client that polls has the table in the
# end, and got no change twice.
#
# POLL_TEST_DURATION	seconds, 30 by default
# POLL_TEST_SEED		to try the same random numbers again

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PollStress;
use PollTest;
use Test::More;

my $node = new_node('stress');

stress($node, random_seed(), $ENV{POLL_TEST_DURATION} // 30);

done_testing();
