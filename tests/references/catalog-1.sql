CREATE TABLE schema_info (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
CREATE TABLE collections (
	"key" INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	dimension INTEGER NOT NULL, 
	metric TEXT NOT NULL, 
	language TEXT NOT NULL, 
	embedder TEXT NOT NULL, 
	embedder_fingerprint TEXT NOT NULL, 
	chunking TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY ("key"), 
	UNIQUE (name)
);
CREATE TABLE keys (
	id TEXT NOT NULL, 
	sha256 TEXT NOT NULL, 
	name TEXT NOT NULL, 
	roles TEXT NOT NULL, 
	namespaces TEXT, 
	groups TEXT, 
	expires_at FLOAT, 
	created_at FLOAT NOT NULL, 
	revoked_at FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE (sha256)
);
CREATE TABLE tombstones (
	document_id TEXT NOT NULL, 
	collection TEXT NOT NULL, 
	namespace TEXT NOT NULL, 
	deleted_at FLOAT NOT NULL, 
	PRIMARY KEY (document_id)
);
CREATE TABLE namespaces (
	"key" INTEGER NOT NULL, 
	collection_key INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	commit_number INTEGER NOT NULL, 
	pending INTEGER, 
	swept INTEGER NOT NULL, 
	sweeping BOOLEAN NOT NULL, 
	dropping BOOLEAN NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY ("key"), 
	UNIQUE (collection_key, name), 
	FOREIGN KEY(collection_key) REFERENCES collections ("key") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE commits (
	namespace_key INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	committed_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace_key, number), 
	FOREIGN KEY(namespace_key) REFERENCES namespaces ("key") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE documents (
	id TEXT NOT NULL, 
	namespace_key INTEGER NOT NULL, 
	uri TEXT NOT NULL, 
	version_key INTEGER NOT NULL, 
	media_type TEXT NOT NULL, 
	source_sha256 TEXT NOT NULL, 
	extractor TEXT NOT NULL, 
	metadata TEXT NOT NULL, 
	groups TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	updated_at FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (namespace_key, uri), 
	FOREIGN KEY(namespace_key) REFERENCES namespaces ("key") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE failures (
	namespace_key INTEGER NOT NULL, 
	uri TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	failed_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace_key, uri), 
	FOREIGN KEY(namespace_key) REFERENCES namespaces ("key") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE purges (
	namespace_key INTEGER NOT NULL, 
	document_id TEXT NOT NULL, 
	chunk_ids TEXT NOT NULL, 
	PRIMARY KEY (namespace_key, document_id), 
	FOREIGN KEY(namespace_key) REFERENCES namespaces ("key") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE versions (
	"key" INTEGER NOT NULL, 
	document_id TEXT NOT NULL, 
	version TEXT NOT NULL, 
	title TEXT NOT NULL, 
	marks TEXT NOT NULL, 
	chunking TEXT NOT NULL, 
	size_chars INTEGER NOT NULL, 
	total_chunks INTEGER NOT NULL, 
	PRIMARY KEY ("key"), 
	UNIQUE (document_id, version), 
	FOREIGN KEY(document_id) REFERENCES documents (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE lives (
	version_key INTEGER NOT NULL, 
	born INTEGER NOT NULL, 
	died INTEGER, 
	namespace_key INTEGER NOT NULL, 
	PRIMARY KEY (version_key, born), 
	FOREIGN KEY(version_key) REFERENCES versions ("key") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX lives_by_death ON lives (namespace_key, died) WHERE died IS NOT NULL;
CREATE TABLE text_blocks (
	version_key INTEGER NOT NULL, 
	block INTEGER NOT NULL, 
	text TEXT NOT NULL, 
	PRIMARY KEY (version_key, block), 
	FOREIGN KEY(version_key) REFERENCES versions ("key") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE chunks (
	id TEXT NOT NULL, 
	version_key INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	start_char INTEGER NOT NULL, 
	end_char INTEGER NOT NULL, 
	page INTEGER, 
	heading_path TEXT NOT NULL, 
	token_count INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (version_key, number), 
	FOREIGN KEY(version_key) REFERENCES versions ("key") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE token_vectors (
	version_key INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	fingerprint TEXT NOT NULL, 
	token_count INTEGER NOT NULL, 
	bits BLOB NOT NULL, 
	PRIMARY KEY (version_key, number), 
	FOREIGN KEY(version_key) REFERENCES versions ("key") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO schema_info VALUES(1);
