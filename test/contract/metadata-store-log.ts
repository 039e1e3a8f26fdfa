/** The metadata store's contract: appending, reading, trimming; the fence above all. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { bytesOf, type ContractSettings, failsWith, objectRow, rigFor } from './metadata-store-rig.ts';

export function appendContract(settings: ContractSettings): void {
  const rig = rigFor(settings);

  it('appends in order and reads back byte by byte', async () => {
    const { store, rival } = rig();
    const shard = await rig().freshShard();
    const bodies = [new Uint8Array(0), bytesOf('two'), new Uint8Array(300_000).map((_, i) => i * 7)];
    const entries = bodies.map((body, i) => rig().entry(shard, i + 1, { body }));
    for (const entry of entries) {
      assert.deepEqual(await store.appendEntries([entry], []), [{ kind: 'done' }]);
    }
    assert.deepEqual(await rival.readEntries(shard, 0, 1e9), entries);
    const head = await rival.readHead(shard);
    assert.deepEqual(head, {
      shard,
      headSeq: 3,
      headCommitId: entries[2].commitId,
      epoch: 1,
      holder: 7,
      checkpoint: null,
      trimmedThrough: 0,
    });
  });

  it('reads as many as fit, at least one, and nothing past the end', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const entries = await rig().fill(shard, 5, 100);
    assert.deepEqual(await store.readEntries(shard, 0, 0), entries.slice(0, 1));
    assert.deepEqual(await store.readEntries(shard, 0, 199), entries.slice(0, 1));
    assert.deepEqual(await store.readEntries(shard, 0, 200), entries.slice(0, 2));
    assert.deepEqual(await store.readEntries(shard, 2, 300), entries.slice(2));
    assert.deepEqual(await store.readEntries(shard, 4, 1e9), entries.slice(4));
    assert.deepEqual(await store.readEntries(shard, 5, 1e9), []);
    assert.deepEqual(await store.readEntries(shard, 50, 1e9), []);
  });

  it('refuses the same commit sent twice and shows that it landed', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const [first] = await rig().fill(shard, 1);
    const [again] = await store.appendEntries([first], []);
    assert(again.kind === 'conflict');
    assert.equal(again.head.headSeq, 1);
    assert.equal(again.head.headCommitId, first.commitId);
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), [first]);
  });

  it('refuses a wrong seq or epoch and changes nothing', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const entries = await rig().fill(shard, 3);
    const head = await store.readHead(shard);
    for (const [seq, epoch] of [
      [1, 1], // long gone
      [3, 1], // taken
      [5, 1], // a gap
      [1e15, 1],
      [4, 0], // an older holder
      [4, 2], // an epoch that nobody was given
    ]) {
      const [outcome] = await store.appendEntries([rig().entry(shard, seq, { epoch })], []);
      assert.deepEqual(outcome, { kind: 'conflict', head }, `seq ${seq}, epoch ${epoch}`);
    }
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), entries);
  });

  it('refuses on a trimmed shard what it would refuse on a whole one', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    await rig().fill(shard, 3);
    await store.movePointer(shard, 1, { seq: 3, writer: 7 });
    await store.trim(shard, 3);
    // Rows 1 to 3 are gone: a store that only looked whether (shard, seq) is free would take these.
    for (const seq of [1, 2, 3]) {
      const [outcome] = await store.appendEntries([rig().entry(shard, seq)], []);
      assert.equal(outcome.kind, 'conflict');
    }
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), []);
    assert.deepEqual(await store.appendEntries([rig().entry(shard, 4)], []), [{ kind: 'done' }]);
    assert.deepEqual(
      (await store.readEntries(shard, 0, 1e9)).map(({ seq }) => seq),
      [4],
    );
  });

  it('commits each shard on its own, in the order asked, and the objects whatever happens', async () => {
    const { store } = rig();
    const shards = [await rig().freshShard(), await rig().freshShard(), await rig().freshShard()];
    const [a, b, c] = [...shards].reverse();
    await rig().fill(b, 1);
    const row = objectRow(1, 1, { shards: shards.map((shard) => ({ shard, epoch: 1 })) });
    const entries = [rig().entry(a, 1), rig().entry(b, 1), rig().entry(c, 1)];
    const outcomes = await store.appendEntries(entries, [row, objectRow(1, 2)]);
    assert.deepEqual(
      outcomes.map(({ kind }) => kind),
      ['done', 'conflict', 'done'],
    );
    assert.equal(outcomes[1].kind === 'conflict' && outcomes[1].head.shard, b);
    assert.deepEqual(await store.readEntries(c, 0, 1e9), [entries[2]]);
    assert.equal((await store.readHead(b)).headCommitId === entries[1].commitId, false);

    // All refused: the rows are there all the same, and a second insert changes nothing.
    const changed = { ...row, bytes: 5, createdAtMs: 6, shards: [{ shard: 9, epoch: 9 }] };
    const refused = await store.appendEntries(entries, [changed, objectRow(1, 3, { shards: [] })]);
    assert.deepEqual(
      refused.map(({ kind }) => kind),
      ['conflict', 'conflict', 'conflict'],
    );
    const ids = [1, 2, 3, 4].map((number) => ({ incarnation: 1, number }));
    const found = await store.getObjects(ids);
    assert.deepEqual(found[0], { ...row, markedAtMs: null });
    assert.deepEqual(
      found.map((object) => object?.object.number ?? null),
      [1, 2, 3, null],
    );
    assert.deepEqual(await store.appendEntries([], [objectRow(1, 4)]), []);
    assert.deepEqual(await store.appendEntries([], []), []);
    assert.deepEqual((await store.getObjects(ids))[3], { ...objectRow(1, 4), markedAtMs: null });
  });

  it('does nothing at all when one of the shards is none', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const entries = [rig().entry(shard, 1), rig().entry(1000, 1)];
    await failsWith('shard-not-found', store.appendEntries(entries, [objectRow(3, 1)]));
    assert.equal((await store.readHead(shard)).headSeq, 0);
    assert.deepEqual(await store.getObjects([{ incarnation: 3, number: 1 }]), [null]);
  });

  it('takes a body of exactly the maximum and refuses one byte more', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const other = await rig().freshShard();
    const body = new Uint8Array(store.bodyBytesMax).fill(0x5a);
    body[body.length - 1] = 1;
    const tooLarge = rig().entry(shard, 1, { body: new Uint8Array(store.bodyBytesMax + 1) });
    await failsWith(
      'item-too-large',
      store.appendEntries([rig().entry(other, 1), tooLarge], [objectRow(4, 1)]),
    );
    assert.equal((await store.readHead(other)).headSeq, 0);
    assert.deepEqual(await store.getObjects([{ incarnation: 4, number: 1 }]), [null]);
    assert.deepEqual(await store.appendEntries([rig().entry(shard, 1, { body })], []), [{ kind: 'done' }]);
    const [read] = await store.readEntries(shard, 0, 1);
    assert(Buffer.from(read.body).equals(body));
  });

  it('lets exactly one of two writers have a seq, every time', async () => {
    const { store, rival } = rig();
    const shard = await rig().freshShard();
    const wins = [0, 0];
    for (let seq = 1; seq <= settings.raceRounds; seq++) {
      const entries = [rig().entry(shard, seq), rig().entry(shard, seq)];
      const flip = seq % 2;
      const calls = [
        (flip ? rival : store).appendEntries([entries[0]], []),
        (flip ? store : rival).appendEntries([entries[1]], []),
      ];
      const outcomes = (await Promise.all(calls)).flat();
      const winner = outcomes.findIndex(({ kind }) => kind === 'done');
      const loser = outcomes[1 - winner];
      assert(winner >= 0 && loser.kind === 'conflict', `seq ${seq}`);
      assert.equal(loser.head.headSeq, seq);
      assert.equal(loser.head.headCommitId, entries[winner].commitId);
      wins[winner]++;
    }
    const head = await store.readHead(shard);
    assert.equal(head.headSeq, settings.raceRounds);
    const log = await store.readEntries(shard, 0, 1e9);
    assert.deepEqual(
      log.map(({ seq }) => seq),
      Array.from({ length: settings.raceRounds }, (_, i) => i + 1),
    );
  });

  it("keeps callers' bytes whole and hands out bytes of their own", async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const backing = new Uint8Array(64).fill(9);
    const body = backing.subarray(16, 32);
    const appended = store.appendEntries([rig().entry(shard, 1, { body })], []);
    backing.fill(1);
    await appended;
    assert.equal(backing.length, 64);
    const [read] = await store.readEntries(shard, 0, 1e9);
    assert.deepEqual(read.body, new Uint8Array(16).fill(9));
    read.body.fill(3);
    assert.deepEqual((await store.readEntries(shard, 0, 1e9))[0].body, new Uint8Array(16).fill(9));
  });

  it('stops loudly at what only a bug could ask for', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const twice = [rig().entry(shard, 1), rig().entry(shard, 1)];
    await assert.rejects(store.appendEntries(twice, []), { name: 'AssertionError' });
    const wrong = [
      rig().entry(shard, 0),
      rig().entry(shard, 1.5),
      rig().entry(shard, 1, { epoch: -1 }),
      rig().entry(shard, 1, { commitId: '' }),
      rig().entry(shard, 1, { commitId: 'x'.repeat(65) }),
      rig().entry(shard, 1, { commitId: 'ü' }),
    ];
    for (const entry of wrong) {
      await assert.rejects(store.appendEntries([entry], []), { name: 'AssertionError' });
    }
    const longest = rig().entry(shard, 1, { commitId: 'x'.repeat(64) });
    assert.deepEqual(await store.appendEntries([longest], []), [{ kind: 'done' }]);
  });
}

export function trimContract(settings: ContractSettings): void {
  const rig = rigFor(settings);

  it('refuses to trim above the checkpoint pointer', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const entries = await rig().fill(shard, 4);
    await store.trim(shard, 0);
    await failsWith('conflict', store.trim(shard, 1));
    await store.movePointer(shard, 1, { seq: 2, writer: 7 });
    await failsWith('conflict', store.trim(shard, 3));
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), entries);
    assert.equal((await store.readHead(shard)).trimmedThrough, 0);
  });

  it('trims, again and less, and reads past the trim', async () => {
    const { store } = rig();
    const shard = await rig().freshShard();
    const neighbour = await rig().freshShard();
    const entries = await rig().fill(shard, 4);
    const others = await rig().fill(neighbour, 4);
    await store.movePointer(shard, 1, { seq: 3, writer: 7 });
    await store.trim(shard, 2);
    await store.trim(shard, 2);
    await store.trim(shard, 1);
    assert.equal((await store.readHead(shard)).trimmedThrough, 2);
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), entries.slice(2));
    assert.deepEqual(await store.readEntries(shard, 1, 1e9), entries.slice(2));
    await store.trim(shard, 3);
    assert.deepEqual(await store.readEntries(shard, 0, 1e9), entries.slice(3));
    assert.deepEqual(await store.readEntries(neighbour, 0, 1e9), others);
    const head = await store.readHead(shard);
    assert.deepEqual([head.headSeq, head.trimmedThrough, head.checkpoint], [4, 3, { seq: 3, writer: 7 }]);
  });
}
