//! What leaves the process: protobuf sessions, stored records and the JSON of the API.
