import type { Suite } from '../suite.ts';

export const httpDoorSuite: Suite = { name: 'http-door', title: '', run: async () => [] };
