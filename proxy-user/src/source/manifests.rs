//! Objects from a folder of manifests.
