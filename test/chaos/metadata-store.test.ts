/** Bad days of every metadata store there is: in memory, and as brokers open it, on its storing thread. */
import { after, before } from 'node:test';
import { MemoryMetadataStore } from '../../storage/metadata/memory/memory-metadata-store.ts';
import { openMetadata } from '../../storage/metadata/open-metadata-store.ts';
import { METADATA_PLACES, type MetadataPlace } from '../support/metadata-places.ts';
import { badDaysSuite } from './metadata-store.ts';

badDaysSuite('memory', async () => ({ store: new MemoryMetadataStore(), close: async () => undefined }));

for (const [scheme, openPlace] of Object.entries(METADATA_PLACES)) {
  let place: MetadataPlace;
  before(async () => {
    place = await openPlace();
  });
  after(() => place.end());
  badDaysSuite(scheme, async () => openMetadata(await place.freshUrl(), { role: 'broker', migrate: true }));
}
