/**
 * One suite in a process of its own, so that no suite runs in the heap and the optimised code that another left
 * behind. Owns nothing: the suite's name and options come as arguments, the figures go to the parent as a message.
 */
import type { SuiteOptions } from './suite.ts';
import { SUITES } from './suites.ts';

const [name, options] = process.argv.slice(2);
const suite = SUITES.find((one) => one.name === name);
if (suite === undefined || process.send === undefined) throw new Error('started by bench/run.ts only');
const figures = await suite.run(JSON.parse(options) as SuiteOptions);
process.send(figures, () => process.disconnect());
