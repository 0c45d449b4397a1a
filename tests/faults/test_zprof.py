import time
from test_every_command import *
from test_every_command import bench
def test_prof(bench):
    undisturbed(bench,'c1')
    for i in range(3):
        t=[time.monotonic()]
        def m(x): t.append(time.monotonic()); print(x, round(t[-1]-t[-2],3))
        bench.reset(); m('reset')
        bench.repair('r1'); m('repair')
        bench.repair('r2'); m('repair2')
        bench.quiet(); m('quiet')
        bench.state(); m('state')
        story(bench, bench.reset()); m('reset+story')
    import cProfile, pstats
    bench.reset()
    p=cProfile.Profile(); p.enable(); bench.reset(); p.disable()
    pstats.Stats(p).sort_stats('cumtime').print_stats(18)
