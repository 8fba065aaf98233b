// Every dashboard.

import { bus } from './bus.mjs';
import { cluster } from './cluster.mjs';
import { load } from './load.mjs';
import { node } from './node.mjs';
import { slo } from './slo.mjs';

export const dashboards = (file) => [slo(file), cluster(), node(), bus(), load(file)];
