// Serves Azurite, Microsoft's own emulator of Azure's blobs, with a container, until whoever started it has gone: then its
// standard input ends. Its packages are where the first argument says; its address is the one line that is written.
"use strict";

const [packages] = process.argv.slice(2);
const load = (name) => require(require.resolve(name, { paths: [packages] }));
// As anybody may know it: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
const [account, key] = [
  "devstoreaccount1",
  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
];

async function serve() {
  // The factory reads its settings there, and the API's version is that of the client.
  process.argv.splice(2, Infinity, "--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--silent");
  const server = await new (load("azurite/dist/src/blob/BlobServerFactory").BlobServerFactory)().createServer();
  await server.start();
  const { BlobServiceClient, StorageSharedKeyCredential } = load("@azure/storage-blob");
  const endpoint = `${server.getHttpServerAddress()}/${account}`;
  const client = new BlobServiceClient(endpoint, new StorageSharedKeyCredential(account, key));
  await client.createContainer("bucket");
  console.log(endpoint);
}

process.stdin.resume().on("end", () => process.exit());
serve();
